"""What a scenario is given: connections, names that are its own, and the end of both."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

from conformance.channel import Channel
from conformance.client import Address, Connection
from conformance.failure import ConformanceError
from conformance.fields import octets
from conformance.limited import Alarms
from conformance.registry import Deviation, Limit, Scenario

_numbers = itertools.count(1)
_run = f"{os.getpid():x}{time.time_ns() // 1_000_000 & 0xFFFFFF:x}"


class Session:
    """The fixture of one scenario, used by one thread.

    `broker` is "leveret" or "rabbitmq". Queues and exchanges that were declared are deleted and
    connections are dropped when the scenario ends.
    """

    def __init__(
        self,
        address: Address,
        broker: str,
        scenario: Scenario,
        stop_broker: Callable[[], None] | None = None,
        restart_broker: Callable[[], Address] | None = None,
        alarms: Alarms | None = None,
    ) -> None:
        self.address = address
        self.broker = broker
        self.asked_deviation = False
        self._deviation = scenario.deviation_of(broker)
        self._stop_broker = stop_broker
        self._restart_broker = restart_broker
        self._alarms = alarms
        self._connections: list[Connection] = []
        self._queues: set[str] = set()
        self._exchanges: set[str] = set()

    @property
    def deviates(self) -> Deviation | None:
        """The deviation of this broker, if the scenario names one; then check that instead."""
        self.asked_deviation = True
        return self._deviation

    def name(self, label: str) -> str:
        """A name that nothing else has, ending in the label."""
        return f"conformance.{_run}.{next(_numbers)}.{label}"

    def dial(self, *, timeout_s: float = 10.0, address: Address | None = None) -> Connection:
        """A TCP connection on which nothing was said."""
        where = address or self.address
        connection = Connection(where, timeout_s=timeout_s, watch=self._watch)
        self._connections.append(connection)
        return connection

    def connect(self, **options: Any) -> Connection:
        """An open connection; options as for `Connection.open`."""
        return self.dial().open(**options)

    def channel(self, **options: Any) -> Channel:
        """A channel on a connection of its own."""
        return self.connect(**options).channel()

    def queue(self, channel: Channel, label: str = "q", **fields: Any) -> str:
        """Declares a queue with a name of its own (transient unless the fields say otherwise)."""
        return channel.declare_queue(self.name(label), **fields)

    def exchange(self, channel: Channel, kind: str = "direct", **fields: Any) -> str:
        """Declares an exchange with a name of its own."""
        return channel.declare_exchange(self.name("x"), kind, **fields)

    def stop_broker(self) -> None:
        """Asks the broker to shut down in good order; only in scenarios marked `ends_broker`."""
        if self._stop_broker is None:
            raise ValueError("scenario is not marked ends_broker")
        self._stop_broker()

    def restart_broker(self) -> None:
        """Ends the broker under open connections and starts it again; only in scenarios with
        `restarts`, which say how. Returns when it serves; all connections are gone then."""
        if self._restart_broker is None:
            raise ValueError("scenario is not marked with restarts")
        self.address = self._restart_broker()
        for connection in self._connections:
            connection.drop()
        self._connections.clear()

    def raise_alarm(self, what: Limit = Limit.MEMORY) -> None:
        """Lets the broker run short; publishers have to wait when it returns. Only in scenarios
        with this limit that are `alone`."""
        self._own_alarms().raise_alarm(what)

    def clear_alarm(self) -> None:
        """Gives the broker memory again. Its disk may stay short until the run is over."""
        self._own_alarms().clear()

    def _own_alarms(self) -> Alarms:
        if self._alarms is None:
            raise ValueError("scenario is not marked with a limit")
        return self._alarms

    def _watch(self, name: str, fields: dict[str, Any]) -> None:
        if name in ("queue.declare", "queue.declare-ok"):
            queue = fields.get("queue", "")
            if _is_utf8(queue) and not fields.get("passive"):
                self._queues.add(queue)
        elif name == "exchange.declare" and not fields.get("passive"):
            exchange = fields.get("exchange", "")
            if _is_utf8(exchange) and not _is_builtin(exchange):
                self._exchanges.add(exchange)

    def end(self) -> None:
        """Drops the connections, clears alarms and deletes what was declared."""
        for connection in self._connections:
            connection.drop()
        if self._alarms is not None:
            self._alarms.clear()
        if self._stop_broker is not None:
            return
        if not self._exchanges and not self._queues:
            return
        cleaner = Connection(self.address).open()
        try:
            channel = cleaner.channel()
            for queue in self._queues:
                channel = _delete(channel, "queue.delete", queue=queue)
            for exchange in self._exchanges:
                channel = _delete(channel, "exchange.delete", exchange=exchange)
            cleaner.close()
        finally:
            cleaner.drop()


def _is_utf8(name: str | bytes) -> bool:
    """Whether the broker could have declared it."""
    try:
        return bool(octets(name).decode())
    except UnicodeDecodeError:
        return False


def _is_builtin(name: str | bytes) -> bool:
    return octets(name).startswith(b"amq.")


def _delete(channel: Channel, method: str, **fields: Any) -> Channel:
    channel.send(method, **fields)
    answer = channel.next_method(f"{method}-ok")
    if answer.name == "channel.close":
        # An exclusive queue of a connection whose end the broker has not noticed yet goes with it.
        channel.send("channel.close-ok")
        if answer["reply_code"] != 405:
            raise ConformanceError(f"clean-up: {method} of {fields} was answered with {answer}")
        channel.reopen()
    return channel
