"""Makes and deletes queues, exchanges and bindings, one at a time, and looks at what is there."""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from conformance.channel import Channel
from conformance.client import Address, Connection
from conformance.crash.definitions import (
    DURABLE_QUEUES,
    EXCHANGE_ARGUMENTS,
    KEYS,
    KINDS,
    PROBES,
    QUEUE_ARGUMENTS,
    TRANSIENT_EXCHANGES,
    TRANSIENT_QUEUES,
    Arguments,
    Change,
    Observed,
    State,
)
from conformance.crash.findings import Finding, Kind
from conformance.crash.routes import Binding
from conformance.crash.worker import Worker

BARRIER = "d.barrier"
"""A queue that is made and deleted so that something is durable."""
MESSAGES_MOST = 20
"""Messages in one of these queues."""


class Definitions:
    """What the definer knows: the state, and the change that was not answered."""

    def __init__(self) -> None:
        self.state = State()
        self.pending: Change | None = None
        self.numbers = itertools.count(1)
        self._answered: deque[tuple[float, Change]] = deque(maxlen=500)

    def answered(self) -> None:
        """The broker has said that the pending change has happened."""
        assert self.pending is not None
        self.state = self.state.after(self.pending)
        self._answered.append((time.monotonic(), self.pending))
        self.pending = None

    def restarted(self, state: State) -> None:
        """This is what there is after a restart."""
        self.state = state
        self.pending = None
        self._answered.clear()

    def history(self, ended_at: float) -> str:
        """What was there, and the changes that led there, the last one last."""
        changes = [
            f"{ended_at - moment:.3f} s before the end: {change}"
            for moment, change in self._answered
        ]
        return "\n".join([*changes, f"not answered: {self.pending}", f"known: {self.state}"])

    def told(self, difference: str, ended_at: float) -> Finding:
        """The difference with the last changes of what it names; its age is that of the last."""
        related = [
            (ended_at - moment, change)
            for moment, change in self._answered
            if any(name and name in difference for name in change.names)
        ][-3:]
        changes = [f"{change} answered {age_s:.3f} s before the end" for age_s, change in related]
        text = "; ".join([difference, *changes, f"not answered: {self.pending}"])
        return Finding(Kind.DEFINITION, text, related[-1][0] if related else None)


class Definer(Worker):
    """Changes `definitions` at random."""

    definitions: Definitions

    def work(self, connection: Connection) -> None:
        channel = connection.channel()
        publisher = connection.channel()
        publisher.call("confirm.select")
        tag = 0
        rest_s = self.chance.choice([0.0, 0.005, 0.02])
        while not self.ending.is_set():
            change = random_change(self.definitions, self.chance)
            self.definitions.pending = change
            if change.method == "basic.publish":
                tag += 1
                properties = {"delivery_mode": 2}
                publisher.publish(
                    b"%d" % change.message, routing_key=change.name, properties=properties
                )
                publisher.expect("basic.ack", delivery_tag=tag)
            else:
                channel.call(change.method, **fields_of(change))
            self.definitions.answered()
            self.counts["definitions"] += 1
            self.ending.wait(rest_s)


def fields_of(change: Change) -> dict[str, Any]:
    """The fields of the method on the wire."""
    binding = change.binding
    if binding is not None:
        destination = "queue" if binding.to_queue else "destination"
        source = "exchange" if binding.to_queue else "source"
        return {
            destination: binding.destination,
            source: binding.source,
            "routing_key": binding.key,
            "arguments": binding.arguments,
        }
    if change.method == "queue.declare":
        return queue_fields(change.name, QUEUE_ARGUMENTS[change.arguments])
    if change.method == "exchange.declare":
        return exchange_fields(change.name, EXCHANGE_ARGUMENTS[change.arguments])
    return {change.method.split(".")[0]: change.name}


def queue_fields(name: str, arguments: Arguments) -> dict[str, Any]:
    """The fields of queue.declare for one of these queues."""
    return {"queue": name, "durable": name in DURABLE_QUEUES, "arguments": arguments}


def exchange_fields(name: str, arguments: Arguments) -> dict[str, Any]:
    """The fields of exchange.declare for one of these exchanges."""
    durable = name not in TRANSIENT_EXCHANGES
    return {"exchange": name, "type": KINDS[name], "durable": durable, "arguments": arguments}


def random_change(definitions: Definitions, chance: random.Random) -> Change:
    """A change that the broker must accept in this state."""
    state = definitions.state
    queues, exchanges = sorted(state.queues), sorted(state.exchanges)
    no_queues = sorted({*DURABLE_QUEUES, *TRANSIENT_QUEUES} - set(queues))
    no_exchanges = sorted(set(KINDS) - set(exchanges))
    choices: list[Change] = []
    if no_queues:
        arguments = chance.randrange(len(QUEUE_ARGUMENTS))
        choices += [Change("queue.declare", chance.choice(no_queues), arguments)] * 4
    if no_exchanges:
        arguments = chance.randrange(len(EXCHANGE_ARGUMENTS))
        choices += [Change("exchange.declare", chance.choice(no_exchanges), arguments)] * 4
    if queues:
        choices.append(Change("queue.delete", chance.choice(queues)))
        choices.append(Change("queue.purge", chance.choice(queues)))
    kept = [q for q in queues if q in DURABLE_QUEUES and len(state.messages[q]) < MESSAGES_MOST]
    if kept:
        number = next(definitions.numbers)
        choices += [Change("basic.publish", chance.choice(kept), message=number)] * 4
    if exchanges:
        choices.append(Change("exchange.delete", chance.choice(exchanges)))
        binding = _random_binding(queues, exchanges, chance)
        if binding is not None:
            kind = "queue" if binding.to_queue else "exchange"
            choices += [Change(f"{kind}.bind", binding=binding)] * 4
    if state.bindings:
        ordered = sorted(state.bindings, key=repr)
        binding = chance.choice(ordered)
        kind = "queue" if binding.to_queue else "exchange"
        choices += [Change(f"{kind}.unbind", binding=binding)] * 2
    return chance.choice(choices)


def _random_binding(
    queues: Sequence[str], exchanges: Sequence[str], chance: random.Random
) -> Binding | None:
    source = chance.choice(exchanges)
    kind = KINDS[source]
    to_queue = bool(queues) and chance.random() < 0.8
    if not queues and not to_queue and len(exchanges) < 2:
        return None
    destination = chance.choice(queues if to_queue else exchanges)
    number = chance.randint(1, 2) if kind == "headers" else 0
    return Binding(source, destination, to_queue, chance.choice(KEYS[kind]), number)


def observe(address: Address) -> Observed:
    """What is there of the universe of definitions. Takes the messages out of the queues."""
    connection = Connection(address).open()
    channel = connection.channel()
    queues: dict[str, int | None] = {}
    messages: dict[str, tuple[int, ...]] = {}
    for queue in (*DURABLE_QUEUES, *TRANSIENT_QUEUES):
        if _exists(channel, "queue.declare", {"queue": queue}):
            messages[queue] = tuple(int(body) for body in channel.get_all(queue))
            fields = [queue_fields(queue, arguments) for arguments in QUEUE_ARGUMENTS]
            queues[queue] = _accepted(channel, "queue.declare", fields)
    exchanges: dict[str, int | None] = {}
    for exchange in KINDS:
        if _exists(channel, "exchange.declare", {"exchange": exchange}):
            fields = [exchange_fields(exchange, arguments) for arguments in EXCHANGE_ARGUMENTS]
            exchanges[exchange] = _accepted(channel, "exchange.declare", fields)
    arrivals = _arrivals(connection.channel(), queues, exchanges)
    settle_for_good(channel)
    connection.close()
    return Observed(queues, exchanges, messages, arrivals)


def settle_for_good(channel: Channel) -> None:
    """Returns when what was taken so far will not come back: what is durable later, is durable."""
    channel.declare_queue(BARRIER, durable=True)
    channel.call("queue.delete", queue=BARRIER)


def clear(address: Address) -> None:
    """Deletes all of the universe of definitions."""
    connection = Connection(address).open()
    channel = connection.channel()
    for queue in (*DURABLE_QUEUES, *TRANSIENT_QUEUES):
        channel.call("queue.delete", queue=queue)
    for exchange in KINDS:
        channel.call("exchange.delete", exchange=exchange)
    connection.close()


def _arrivals(
    channel: Channel, queues: Mapping[str, int | None], exchanges: Mapping[str, int | None]
) -> dict[tuple[str, str, int], list[str]]:
    sent = [probe for probe in PROBES if probe[0] in exchanges]
    channel.call("confirm.select")
    for number, (exchange, key, header) in enumerate(sent):
        properties = {"headers": {"number": header}}
        channel.publish(b"%d" % number, exchange, key, properties=properties)
    channel.confirms(range(1, len(sent) + 1))
    found: dict[tuple[str, str, int], list[str]] = {probe: [] for probe in sent}
    for queue in sorted(queues):
        for body in channel.get_all(queue):
            found[sent[int(body)]].append(queue)
    return found


def _exists(channel: Channel, method: str, fields: Mapping[str, Any]) -> bool:
    channel.send(method, passive=True, **fields)
    return _ok(channel, method)


def _accepted(channel: Channel, method: str, choices: Sequence[Mapping[str, Any]]) -> int | None:
    """The index of the declaration that the broker finds equal to what is there."""
    found = []
    for index, fields in enumerate(choices):
        channel.send(method, **fields)
        if _ok(channel, method):
            found.append(index)
    return found[0] if len(found) == 1 else None


def _ok(channel: Channel, method: str) -> bool:
    answer = channel.expect(f"{method}-ok", "channel.close")
    if answer.name == "channel.close":
        channel.send("channel.close-ok")
        channel.reopen()
        return False
    return True
