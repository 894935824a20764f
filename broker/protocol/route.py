"""Where the method frame of a publish leads. What stands first here is checked first: write
permission, exchange, internal (rabbit_channel, handle_method of 'basic.publish')."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from broker.core.arguments import is_quorum
from broker.core.deduplication.duplicates import Duplicates
from broker.core.exchange import Exchange
from broker.core.message import PUBLISHED, Origin, make_origin, with_time
from broker.core.queue import Queue
from broker.core.reply import REPLY_TO_NAME
from broker.core.routing import Passage, find_queues
from broker.errors import AMQPError, ReplyCode, exchange_title
from broker.protocol.assembly import PUBLISH
from broker.protocol.publish_once import knows_duplicates, single_judge
from broker.wire import properties
from broker.wire.methods import commands, decode_method

if TYPE_CHECKING:
    from broker.protocol.channel import Channel

ROUTES_MAX = 1024
"""Distinct publish frames a connection remembers; then it starts anew."""


class Route:
    """What one publish method frame says, and the queues it leads to while nothing changes.

    `queues` is None where the way depends on what else each message says, or on chance. Persistent
    messages have an origin of their own, if some of the queues last (`may_last`).
    """

    __slots__ = (
        "all_last",
        "cost",
        "deduplicates",
        "exchange",
        "is_timed",
        "judge",
        "mandatory",
        "may_last",
        "origin",
        "persistent_origin",
        "queues",
        "refuses",
        "stamp",
    )

    def __init__(self, method: commands.Basic.Publish) -> None:
        names = method.exchange, method.routing_key
        self.origin: Origin = make_origin(*names)
        self.persistent_origin: Origin = make_origin(*names, persistent=True)
        self.mandatory = method.mandatory
        self.may_last = False
        # A quorum queue keeps every message, whatever its delivery mode.
        self.all_last = False
        self.exchange: Exchange | None = None
        self.queues: list[Queue] | None = None
        # Whether it matters to a queue when messages were published.
        self.is_timed = False
        # Whether a queue may refuse them.
        self.refuses = False
        # Whether somebody on the way knows duplicates, and who alone does on a fixed way.
        self.deduplicates = False
        self.judge: Duplicates | None = None
        # Steps that one message takes: queues, or what is looked at to find them.
        self.cost = 1
        # The epochs of topology and permissions for which `queues` holds.
        self.stamp = (-1, -1)


def find_route(channel: Channel, payload: bytes) -> Route:
    """The route for the payload of a basic.publish frame, remembered by its octets."""
    route = channel.routes.get(payload)
    if route is None:
        method = cast(commands.Basic.Publish, decode_method(payload))
        if method.immediate:
            raise AMQPError(ReplyCode.NOT_IMPLEMENTED, "immediate=true", PUBLISH)
        if len(channel.routes) >= ROUTES_MAX:
            channel.routes.clear()
        route = channel.routes[payload] = Route(method)
    return route


def resolve(channel: Channel, route: Route) -> None:
    """Looks where the route leads now; raises what publishing there is answered with."""
    broker = channel.connection.broker
    if route.stamp != (channel.vhost.epoch, broker.permission_epoch):
        _look(channel, route)
    now = broker.timers.now
    if route.is_timed and route.origin[PUBLISHED] != now:
        route.origin = with_time(route.origin, now)
        route.persistent_origin = with_time(route.persistent_origin, now)


def _look(channel: Channel, route: Route) -> None:
    vhost = channel.vhost
    broker = channel.connection.broker
    stamp = (vhost.epoch, broker.permission_epoch)
    name, routing_key = route.origin[:2]
    try:
        broker.check_permission(channel.connection.user, "write", "exchange", name, vhost.name)
    except AMQPError as error:
        # The frame that is being read may be one of the content.
        error.method_index = PUBLISH
        raise
    exchange = vhost.exchanges.get(name)
    if exchange is None:
        raise AMQPError(ReplyCode.NOT_FOUND, f"no {exchange_title(name, vhost.name)}", PUBLISH)
    if exchange.internal:
        raise AMQPError(
            ReplyCode.ACCESS_REFUSED,
            f"cannot publish to internal {exchange_title(name, vhost.name)}",
            PUBLISH,
        )
    route.exchange = exchange
    passage = Passage([routing_key], b"", broker.random_bytes)
    queues, is_fixed = find_queues(vhost, exchange, passage)
    is_fixed = is_fixed and not (name == "" and routing_key.startswith(REPLY_TO_NAME))
    route.queues = queues if is_fixed else None
    route.may_last = any(queue.lasting for queue in queues) if is_fixed else broker.lasts
    route.all_last = is_fixed and any(is_quorum(queue.arguments) for queue in queues)
    if is_fixed:
        route.is_timed = any(queue.rules.message_ttl is not None for queue in queues)
        route.refuses = any(queue.rules.refuses for queue in queues)
    else:
        policies = vhost.policies
        route.is_timed, route.refuses = policies.timed_count > 0, policies.refusing_count > 0
    route.deduplicates = knows_duplicates(vhost, exchange, queues, is_fixed=is_fixed)
    route.judge = single_judge(exchange, queues) if is_fixed and route.deduplicates else None
    # A time of before, when it mattered, would be wrong from now on.
    route.origin = with_time(route.origin, None)
    route.persistent_origin = with_time(route.persistent_origin, None)
    route.cost = max(1, len(queues), 0 if is_fixed else passage.steps)
    route.stamp = stamp


def origin_of(route: Route, octets: bytes, at: int, flags: int) -> Origin:
    """The origin of a message on this route, whose property list begins at `octets[at]`."""
    if route.may_last and (route.all_last or properties.is_persistent(octets, at, flags)):
        return route.persistent_origin
    return route.origin
