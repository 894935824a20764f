"""Class exchange (AMQP 0-9-1 reference, section 1.6), with RabbitMQ's bindings between
exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from broker.core.exchange import check_type
from broker.core.redeclare import gets_argument
from broker.errors import AMQPError, ReplyCode, exchange_title
from broker.protocol.bindings import ends_last, unbind_ends, waits_for_history
from broker.protocol.names import (
    check_any_permission,
    check_not_default,
    check_not_reserved,
    check_permission,
    clean,
)
from broker.wire.methods import commands
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def declare(channel: Channel, method: commands.Exchange.Declare) -> None:
    """exchange.declare: make the exchange, or check that it is the same."""
    vhost = channel.vhost
    name = clean(method.exchange)
    if not method.passive:
        check_type(method.exchange_type)
    check_not_default(name)
    if method.passive:
        check_any_permission(channel, "exchange", name)
        exchange = vhost.get_exchange(name)
    else:
        arguments = cast(Table, method.arguments)
        check_permission(channel, "configure", "exchange", name)
        if name not in vhost.exchanges:
            check_not_reserved("exchange", name)
        if gets_argument(vhost, vhost.exchanges.get(name), "alternate-exchange", arguments):
            _check_alternate(channel, name, arguments)
        exchange = vhost.declare_exchange(
            name,
            method.exchange_type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=arguments,
        )
    if not method.nowait:
        channel.answer(commands.Exchange.DeclareOk(), lasts=exchange.durable)


def _check_alternate(channel: Channel, name: str, arguments: Table) -> None:
    field = arguments.get("alternate-exchange")
    if field is None:
        return
    if field.type != "longstr":
        raise AMQPError(
            ReplyCode.PRECONDITION_FAILED,
            f"invalid type '{field.type}' for arg 'alternate-exchange' in "
            f"{exchange_title(name, channel.vhost.name)}",
        )
    check_permission(channel, "read", "exchange", name)
    check_permission(channel, "write", "exchange", str(field.value))


def delete(channel: Channel, method: commands.Exchange.Delete) -> None:
    """exchange.delete: one that is not there is fine."""
    vhost = channel.vhost
    name = clean(method.exchange)
    check_not_default(name)
    if name.startswith("amq."):
        raise AMQPError(
            ReplyCode.ACCESS_REFUSED,
            f"deletion of system {exchange_title(name, vhost.name)} not allowed",
        )
    check_permission(channel, "configure", "exchange", name)
    exchange = vhost.exchanges.get(name)
    if exchange is not None:
        vhost.delete_exchange(exchange, if_unused=method.if_unused, must_last=True)
    else:
        channel.connection.broker.check_is_gone()
    if not method.nowait:
        lasts = exchange is None or exchange.durable
        channel.answer(commands.Exchange.DeleteOk(), lasts=lasts)


def bind(channel: Channel, method: commands.Exchange.Bind) -> None:
    """exchange.bind: messages flow from `source` to `destination`."""
    to, origin = _ends(channel, method)
    source = channel.vhost.get_exchange(origin)
    destination = channel.vhost.get_exchange(to)
    if waits_for_history(channel, source, lambda: bind(channel, method), method.index):
        return
    arguments = cast(Table, method.arguments)
    channel.vhost.bind(source, destination, method.routing_key, arguments)
    if not method.nowait:
        channel.answer(commands.Exchange.BindOk(), lasts=ends_last(source, destination))


def unbind(channel: Channel, method: commands.Exchange.Unbind) -> None:
    """exchange.unbind: a binding that is not there is fine."""
    to, origin = _ends(channel, method)
    source, destination = channel.vhost.exchanges.get(origin), channel.vhost.exchanges.get(to)
    arguments = cast(Table, method.arguments)
    unbind_ends(channel, source, destination, method.routing_key, arguments)
    if not method.nowait:
        channel.answer(commands.Exchange.UnbindOk(), lasts=ends_last(source, destination))


def _ends(
    channel: Channel, method: commands.Exchange.Bind | commands.Exchange.Unbind
) -> tuple[str, str]:
    destination, source = clean(method.destination), clean(method.source)
    check_not_default(destination)
    check_permission(channel, "write", "exchange", destination)
    check_not_default(source)
    check_permission(channel, "read", "exchange", source)
    return destination, source
