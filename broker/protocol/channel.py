"""One channel: what it delivered, what it consumes, and the content it is receiving.

The methods of the protocol are in `broker.protocol.methods`, one function each; the hot path of
publishes and acknowledgements is in `broker.protocol.batch`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from broker.core.consumer import BATCH_MAX, Consumer
from broker.core.message import ORIGIN, Entry, Message, content_for, counted, framing, reframed
from broker.core.queue import Queue
from broker.core.reading import keep
from broker.errors import storage_failed
from broker.protocol.assembly import Assembly
from broker.protocol.consumer_timeout import DeliveryTimeouts, timeouts_of
from broker.protocol.output import LARGE
from broker.protocol.refusal import RefusedLook, RefusedTags
from broker.protocol.states import ConnectionState
from broker.protocol.transaction import Transaction
from broker.protocol.unacked import Group, Unacked
from broker.protocol.waiting import wait
from broker.wire.frames import FRAME_HEADER, HEADER, METHOD
from broker.wire.methods import Method, commands, encode_method, make, shortstr

if TYPE_CHECKING:
    from broker.core.vhost import VHost
    from broker.protocol.connection import Connection

_DELIVER = b"\x00\x3c\x00\x3c"
_TAG = struct.Struct(">Q")
_CONFIRM = struct.Struct(">BHL4sQBB")
_BASIC_ACK = b"\x00\x3c\x00\x50"
_BASIC_NACK = b"\x00\x3c\x00\x78"
_ACK_SIZE = 13
ACK_HEAD = struct.Struct(">BHL4s")


class ChannelState(enum.Enum):
    """RUNNING takes methods; CLOSING has sent channel.close and drops all but its answer."""

    RUNNING = enum.auto()
    CLOSING = enum.auto()


class Channel:
    """A channel of a connection. It is the `broker.core.consumer.Sink` of its consumers."""

    def __init__(self, connection: Connection, number: int, vhost: VHost) -> None:
        self.connection = connection
        self.number = number
        self.vhost = vhost
        self.state = ChannelState.RUNNING
        self.framing = framing(number, connection.frame_max)
        self.ack_head = ACK_HEAD.pack(METHOD, number, _ACK_SIZE, _BASIC_ACK)
        self.header_head = bytes([HEADER]) + number.to_bytes(2, "big")
        self.unacked = Unacked()
        self.consumers: dict[str, Consumer] = {}
        self.getters: dict[Queue, Consumer] = {}
        # basic.qos: for consumers to come, and for the whole channel.
        self.consumer_prefetch = 0
        self.prefetch = 0
        # Deliveries to consumers that are not settled; those of basic.get do not count.
        self.consumed_unacked = 0
        # The queue that an empty name stands for.
        self.last_queue_name = ""
        self.routes = connection.routes
        self.shapes = connection.shapes
        # The content that is being received frame by frame, off the hot path.
        self.assembly: Assembly | None = None
        self.is_publisher = False
        # Publisher confirms: how many publishes were numbered, how many of these are told, which
        # of the others were refused, and the last one whose confirm waits for the log.
        self.is_confirming = False
        self.published = 0
        self.confirmed = 0
        self.refused: RefusedTags | None = None
        self.refused_look: RefusedLook | None = None
        self.awaited = 0
        # The last batch of the log that has something of this channel in it.
        self.written_to = 0
        # The batch for which the next answer waits.
        self.answer_after = 0
        self.transaction: Transaction | None = None
        # Of consumers that have a timeout; None if none had one.
        self.timeouts: DeliveryTimeouts | None = None
        self.reply_consumer: str | None = None
        self.reply_token: str | None = None

    def send(self, method: Method) -> None:
        """Queues one method frame for the client."""
        self.connection.send_method(self.number, method)

    # Deliveries

    def room(self) -> int:
        """How many more deliveries this channel may hold."""
        if not self.connection.output.can_take():
            return 0
        if self.prefetch:
            return min(BATCH_MAX, self.prefetch - self.consumed_unacked)
        return BATCH_MAX

    def output_room(self) -> int:
        """Octets the connection may still take in this batch."""
        return self.connection.output.room()

    def deliver(self, consumer: Consumer, entries: Sequence[Entry], size: int) -> None:
        """Sends basic.deliver for each entry, and records what wants an acknowledgement."""
        out = self.connection.output.reserve(size)
        if size >= LARGE * len(entries):
            self.connection.output.has_large = True
        unacked = self.unacked
        tag = unacked.next_tag
        heads = consumer.heads
        own_framing = self.framing
        pack = _TAG.pack
        last_origin: object = None
        head = tail = b""
        for _, message, returns in entries:
            content, _, origin, framed = message
            if origin is not last_origin:
                last_origin = origin
                tail = origin[2]
                head = heads.get(len(tail)) or self._make_head(consumer, len(tail))
            if framed != own_framing:
                content = reframed(message, self.number, self.connection.frame_max)
            if returns:
                if consumer.queue.rules.counts_deliveries:
                    again = counted(message, returns)
                    content = content_for(again, self.number, self.connection.frame_max)
                out += (head, pack(tag), b"\x01", tail[1:], content)
            else:
                out += (head, pack(tag), tail, content)
            tag += 1
        if consumer.no_ack:
            unacked.skip(len(entries))
        else:
            unacked.add(consumer, keep(consumer.queue, entries))
            self.consumed_unacked += len(entries)
            if consumer.timeout:
                timeouts_of(self).watch(consumer, len(entries))

    def _make_head(self, consumer: Consumer, tail_size: int) -> bytes:
        """What a deliver frame starts with. `tail_size` counts the frame end, as the size in the
        frame header does not."""
        payload = _DELIVER + shortstr(consumer.tag)
        size = len(payload) + 8 + tail_size - 1
        head = FRAME_HEADER.pack(METHOD, self.number, size) + payload
        consumer.heads[tail_size] = head
        return head

    def cancelled(self, consumer: Consumer) -> None:
        """The queue is gone: the client is told, if it said that it understands; behind an answer
        that is due."""
        if self.connection.is_waiting:
            self.connection.told_later.append(consumer)
            return
        self.consumers.pop(consumer.tag, None)
        if self.state is ChannelState.RUNNING and self.connection.understands(
            "consumer_cancel_notify"
        ):
            self.send(make(commands.Basic.Cancel, consumer_tag=consumer.tag, nowait=True))

    def timeout_changed(self, consumer: Consumer) -> None:
        """What this consumer holds has another time to be settled in, from now on."""
        timeouts_of(self).restart(consumer)

    def deliver_reply(self, message: Message) -> None:
        """Sends a direct reply to the consumer of amq.rabbitmq.reply-to on this channel.

        Replies are sent at most once: to a client that does not read they are dropped.
        """
        counters = self.connection.broker.counters
        if self.reply_consumer is None or self.connection.output.is_stalled():
            counters.messages_unroutable_dropped += 1
            return
        exchange, routing_key = message[ORIGIN][:2]
        method = make(
            commands.Basic.Deliver,
            consumer_tag=self.reply_consumer,
            delivery_tag=self.unacked.next_tag,
            redelivered=False,
            exchange=exchange,
            routing_key=routing_key,
        )
        self.unacked.skip(1)
        content = content_for(message, self.number, self.connection.frame_max)
        out = self.connection.output.reserve(len(content))
        out += (encode_method(self.number, method), content)
        counters.messages_delivered_consume_auto_ack += 1

    # Settling

    def acknowledge(self, groups: list[Group]) -> None:
        """Lets these deliveries go for good, and makes room for others."""
        for place, (consumer, entries) in enumerate(groups):
            if place:
                # As one by one: who was woken by the last group goes first.
                self.connection.broker.run_deliveries()
            # Its room comes first: what may go out when a key is free, is for who may have it.
            self.release_room(consumer, len(entries))
            consumer.queue.settle(entries)

    def reject(self, groups: list[Group]) -> None:
        """Lets these deliveries die, and makes room for others."""
        for consumer, entries in groups:
            self.release_room(consumer, len(entries))
            consumer.queue.reject(entries)

    def requeue(self, groups: list[Group], *, failed: bool = False) -> None:
        """Gives these deliveries back to their queues; `failed` is whether the client said so."""
        for consumer, entries in groups:
            self.release_room(consumer, len(entries))
            consumer.queue.requeue(entries, failed=failed)

    def release_room(self, consumer: Consumer, count: int) -> None:
        """A consumer, and with it perhaps the channel, has room again."""
        consumer.queue.catch_up()
        consumer.unacked -= count
        if not consumer.tag:
            if not consumer.unacked:
                self.getters.pop(consumer.queue, None)
            return
        was_full = self.prefetch and self.consumed_unacked >= self.prefetch
        self.consumed_unacked -= count
        if not consumer.is_waiting:
            consumer.wake()
        if was_full:
            self.wake_consumers()

    def wake_consumers(self) -> None:
        """Lets every consumer stand in line again, after room was made for all."""
        self.connection.broker.work += len(self.consumers)
        for consumer in self.consumers.values():
            if not consumer.is_waiting:
                consumer.wake()

    # Confirms

    def refuse(self, count: int) -> None:
        """The last publishes, so many, are answered with basic.nack."""
        if self.refused is None:
            self.refused = RefusedTags()
        self.refused.add(self.published - count + 1, self.published)

    def flush_confirms(self) -> None:
        """Confirms every publish so far, once what had to be written is durable. What was refused
        during an alarm is told at once."""
        journal = self.connection.broker.journal
        if journal is None or self.written_to <= journal.durable:
            self._decide(self.published)
        elif journal.has_failed:
            self._decide_later(self.published, is_durable=False)
        else:
            last = self.published if self.refused is None else self._refuse_ahead(self.refused)
            if last > max(self.awaited, self.confirmed):
                self.awaited = last
                journal.when_durable(self.written_to, partial(self._decide_later, last))

    def _decide_later(self, last: int, is_durable: bool) -> None:
        if not is_durable:
            self.written_to = 0
        self._decide(last, is_durable=is_durable)

    def _decide(self, last: int, *, is_durable: bool = True) -> None:
        """Confirms every publish up to this one in one frame, or refuses it; in several frames if
        some were refused already. A publish that is numbered is decided at the end of its batch
        at the latest."""
        first = self.confirmed + 1
        if last < first or not self._is_open():
            return
        self.confirmed = last
        refused = self.refused
        if refused is None:
            self._tell(first, last, is_ack=is_durable)
            return
        for start, end, is_refused in refused.take(first, last):
            self._tell(start, end, is_ack=is_durable and not is_refused)
        self.confirmed = refused.take_told(last)
        if not refused.runs:
            self.refused = None

    def _refuse_ahead(self, refused: RefusedTags) -> int:
        """Tells at once what was refused, one by one where others before it wait for the log, so
        that no frame covers these. Returns the last publish that waits."""
        if refused.runs[0][0] == self.confirmed + 1:
            self._decide(refused.runs[0][1])
        if self._is_open():
            for tag in refused.tell():
                self._tell(tag, tag, is_ack=False)
        return refused.last_other(self.published)

    def _is_open(self) -> bool:
        connection = self.connection
        return (
            connection.state is ConnectionState.RUNNING
            and connection.channels.get(self.number) is self
            and self.state is ChannelState.RUNNING
        )

    def _tell(self, first: int, last: int, *, is_ack: bool) -> None:
        """Sends one basic.ack or basic.nack for these publishes, before which none is open."""
        if is_ack:
            self.connection.broker.counters.messages_confirmed += last - first + 1
        index = _BASIC_ACK if is_ack else _BASIC_NACK
        self.connection.output.reserve(_CONFIRM.size).append(
            _CONFIRM.pack(METHOD, self.number, _ACK_SIZE, index, last, last > first, 0xCE)
        )

    def begin_change(self) -> None:
        """What is done from now on is what `note_written` is about."""
        journal = self.connection.broker.journal
        if journal is not None:
            journal.begin_change()

    def note_written(self) -> None:
        """Something was done that the next `answer`, which is sent now, should not be ahead of."""
        journal = self.connection.broker.journal
        if journal is not None and (journal.has_pending or journal.has_lost):
            self.answer_after = journal.position

    def answer(self, method: Method, *, lasts: bool) -> None:
        """Sends the answer to something that was done; `lasts` is whether it was to define or to
        delete what lasts, or to see that it is there. If it has to be durable, the answer waits for
        that, and nothing else is read of this connection until then. INTERNAL_ERROR if it never
        will be; what would define or delete anything is refused before it is done."""
        journal = self.connection.broker.journal
        after, self.answer_after = self.answer_after, 0
        if journal is None or (journal.has_failed and not after):
            self.send(method)
            return
        position = max(after, journal.defined_to if lasts else 0)
        if position <= journal.durable:
            self.send(method)
        elif journal.has_failed:
            raise storage_failed(journal.log.reason, 0)
        else:
            journal.when_durable(position, wait(self, lambda: self.send(method)))

    def return_message(self, message: Message, code: int, text: str) -> None:
        """Sends basic.return with the whole message."""
        exchange, routing_key = message[ORIGIN][:2]
        method = make(
            commands.Basic.Return,
            reply_code=code,
            reply_text=text,
            exchange=exchange,
            routing_key=routing_key,
        )
        content = content_for(message, self.number, self.connection.frame_max)
        out = self.connection.output.reserve(len(content))
        out += (encode_method(self.number, method), content)

    # The end

    def drop_assembly(self) -> None:
        """Lets go of the content that is being received."""
        if self.assembly is not None:
            self.assembly.drop()
            self.assembly = None

    def stop_consuming(self) -> None:
        """Takes its consumers out of their queues; they get nothing any more."""
        for consumer in self.consumers.values():
            consumer.queue.remove_consumer(consumer)

    def release(self) -> None:
        """Gives back all it holds: its consumers end, its unacknowledged messages are requeued.

        Happens when channel.close is sent or received, and when the connection goes.
        """
        self.stop_consuming()
        if self.timeouts is not None:
            self.timeouts.close()
        groups = self.unacked.take_all()
        consumers = list(self.consumers.values())
        self.consumers.clear()
        self.drop_assembly()
        if self.transaction is not None:
            self.transaction.drop()
            self.transaction = None
        self.requeue(groups)
        for consumer in consumers:
            self.connection.after_consumer_left(self.vhost, consumer)
        if self.reply_token is not None:
            self.connection.broker.reply_sinks.pop(self.reply_token, None)
            self.reply_token = self.reply_consumer = None
