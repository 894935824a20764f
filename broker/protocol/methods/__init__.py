"""What the broker does for each method a client may send: a module for each AMQP class, a
function for each method, named as in the spec. Each reads: check, act, answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from broker.protocol.methods import access, basic, channel, confirm, connection, exchange, queue, tx
from broker.wire.methods import AccessRequest, Method, commands

if TYPE_CHECKING:
    from broker.protocol.channel import Channel

CHANNEL_METHODS: dict[type[Method], Callable[[Channel, Any], None]] = {
    AccessRequest: access.request,
    commands.Channel.Open: channel.open,
    commands.Channel.Close: channel.close,
    commands.Channel.Flow: channel.flow,
    commands.Exchange.Declare: exchange.declare,
    commands.Exchange.Delete: exchange.delete,
    commands.Exchange.Bind: exchange.bind,
    commands.Exchange.Unbind: exchange.unbind,
    commands.Queue.Declare: queue.declare,
    commands.Queue.Bind: queue.bind,
    commands.Queue.Unbind: queue.unbind,
    commands.Queue.Purge: queue.purge,
    commands.Queue.Delete: queue.delete,
    commands.Basic.Qos: basic.qos,
    commands.Basic.Consume: basic.consume,
    commands.Basic.Cancel: basic.cancel,
    commands.Basic.Get: basic.get,
    commands.Basic.Ack: basic.ack,
    commands.Basic.Nack: basic.nack,
    commands.Basic.Reject: basic.reject,
    commands.Basic.Recover: basic.recover,
    commands.Basic.RecoverAsync: basic.recover_async,
    commands.Confirm.Select: confirm.select,
    commands.Tx.Select: tx.select,
    commands.Tx.Commit: tx.commit,
    commands.Tx.Rollback: tx.rollback,
}
"""The methods a client may send on an open channel; basic.publish goes its own way."""

CONNECTION_METHODS: dict[type[Method], Callable[[Any, Any], None]] = {
    commands.Connection.StartOk: connection.start_ok,
    commands.Connection.TuneOk: connection.tune_ok,
    commands.Connection.Open: connection.open,
    commands.Connection.Close: connection.close,
    commands.Connection.CloseOk: connection.close_ok,
    commands.Connection.UpdateSecret: connection.update_secret,
}
"""The methods a client may send on channel 0; when is in `broker.protocol.states`."""
