"""A broker with nothing around it, and consumers that only remember what they got."""

from collections.abc import Sequence
from typing import Any

from broker.core.broker import Broker, Limits
from broker.core.consumer import BATCH_MAX, Consumer
from broker.core.message import CONTENT, MESSAGE, MESSAGE_OVERHEAD, Entry, Message, make_origin
from broker.core.queue import Queue
from broker.core.vhost import VHost
from broker.wire.frames import BODY, frame
from broker.wire.properties import HEADERS, header_frame
from broker.wire.table import Table, encode_table


class Notes(list[tuple[str, dict[str, object]]]):
    """What a broker noted."""

    def __call__(self, event: str, details: dict[str, object]) -> None:
        assert event != "internal_error", details
        self.append((event, details))

    def events(self) -> list[str]:
        return [event for event, _ in self]


def make_broker(*, notes: Notes | None = None, **limits: Any) -> Broker:
    """A broker whose dice fall 1, 2, 3, ..."""
    dice = iter(range(1, 1_000_000))
    return Broker(
        lambda count: next(dice).to_bytes(count, "big"),
        limits=Limits(**limits),
        note=Notes() if notes is None else notes,
    )


def make_vhost() -> VHost:
    return make_broker().add_vhost("/")


def make_message(body: bytes = b"", key: str = "q") -> Message:
    """A message as a publisher on channel 1 sends it."""
    header = header_frame(1, len(body), 0, b"")
    content = header + (frame(BODY, 1, body) if body else b"")
    return content, len(header), make_origin("", key), 131072 << 16 | 1


def header_with(headers: Table) -> bytes:
    """The header frame of a message with these headers, and nothing else."""
    return header_frame(1, 0, HEADERS, encode_table(headers))


def size_of_entry(entry: Entry) -> int:
    """What an entry counts for, said another way than in the broker."""
    return len(entry[MESSAGE][CONTENT]) + MESSAGE_OVERHEAD


def publish(queue: Queue, *bodies: bytes) -> None:
    """Publishes messages with these bodies, each for itself."""
    for body in bodies:
        message = make_message(body, queue.name)
        queue.publish([message], len(message[0]) + MESSAGE_OVERHEAD)


class Sink:
    """Where consumers of one channel get their messages."""

    def __init__(self, room: int = BATCH_MAX, output_room: int = 1 << 20) -> None:
        self.prefetch = 0
        self.room_left = room
        self.output_left = output_room
        self.got: list[tuple[Consumer, Entry]] = []
        self.told: list[Consumer] = []
        self.retimed: list[Consumer] = []

    def room(self) -> int:
        return self.room_left if self.output_left > 0 else 0

    def output_room(self) -> int:
        return self.output_left

    def deliver(self, consumer: Consumer, entries: Sequence[Entry], size: int) -> None:
        assert entries
        assert size == sum(map(size_of_entry, entries))
        assert not consumer.prefetch or consumer.unacked <= consumer.prefetch
        assert len(entries) <= self.room()
        self.got += [(consumer, entry) for entry in entries]

    def cancelled(self, consumer: Consumer) -> None:
        self.told.append(consumer)

    def timeout_changed(self, consumer: Consumer) -> None:
        self.retimed.append(consumer)


def add_consumer(
    queue: Queue, tag: str = "c", sink: Sink | None = None, **options: Any
) -> Consumer:
    """A consumer of a queue; without a sink, on a channel of its own."""
    options.setdefault("no_ack", False)
    consumer = Consumer(sink or Sink(), queue, tag, **options)
    queue.add_consumer(consumer)
    return consumer


def got(consumer: Consumer) -> list[bytes]:
    """The bodies a consumer got, in order."""
    assert isinstance(consumer.sink, Sink)
    return [body_of(entry) for who, entry in consumer.sink.got if who is consumer]


def entries_of(consumer: Consumer) -> list[Entry]:
    """The entries a consumer got, in order."""
    assert isinstance(consumer.sink, Sink)
    return [entry for who, entry in consumer.sink.got if who is consumer]


def body_of(entry: Entry) -> bytes:
    content, header_size, _, _ = entry[MESSAGE]
    return content[header_size + 7 : -1]


def settle(consumer: Consumer, *entries: Entry) -> None:
    """Acknowledges deliveries, as a channel does."""
    consumer.queue.settle(list(entries))
    consumer.queue.catch_up()
    consumer.unacked -= len(entries)
    consumer.wake()


def requeue(consumer: Consumer, *entries: Entry) -> None:
    """Gives deliveries back, as a channel does."""
    consumer.queue.catch_up()
    consumer.unacked -= len(entries)
    consumer.wake()
    consumer.queue.requeue(list(entries))
