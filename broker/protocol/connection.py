"""One connection: octets in, octets out, everything between.

`receive_data` takes a chunk, handles what is complete in it, lets the touched queues deliver, and
confirms. What is to be sent collects in `output` until `data_to_send` takes it. This is the one
place where an `AMQPError` becomes a channel.close or a connection.close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.consumer import Consumer
from broker.core.queue import Queue
from broker.errors import AMQPError, ReplyCode
from broker.protocol import batch
from broker.protocol.channel import Channel, ChannelState
from broker.protocol.frame_errors import frame_end_error, frame_error, too_large, unexpected_frame
from broker.protocol.heartbeat import Beat, Heartbeat
from broker.protocol.methods import CHANNEL_METHODS, CONNECTION_METHODS
from broker.protocol.methods.connection import start
from broker.protocol.publish import (
    PUBLISH,
    Assembly,
    find_route,
    is_special,
    publish,
    publish_special,
    resolve,
)
from broker.protocol.states import HANDSHAKE, LEGAL, ConnectionState
from broker.wire.frames import (
    BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_OVERHEAD,
    FRAME_SIZE_FUDGE,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    PROTOCOL_HEADER,
)
from broker.wire.methods import Method, commands, decode_method, encode_method, make
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.users import User
    from broker.core.vhost import VHost

FRAME_MAX_BEFORE_TUNE = 8192
"""Frame size before anything is negotiated: room for a start-ok with a long token in it."""
OUTPUT_MAX = 1 << 20
"""Octets one connection collects in a batch before its consumers have to wait. A bound on memory,
and on how long one connection keeps the others waiting."""
LOGIN_FAILURE_DELAY_S = 3.0
"""Seconds between a handshake that failed and the end of the socket, without a word, so that
guessing passwords is slow (RabbitMQ's SILENT_CLOSE_DELAY)."""
CLOSE_TIMEOUT_S = 30.0
"""Seconds a client has to answer connection.close."""

_PUBLISH_INDEX = PUBLISH.to_bytes(4, "big")
_ACK_INDEX = b"\x00\x3c\x00\x50"
_CHANNEL_OPEN = 0x0014000A
_PAYLOAD_MIN = {METHOD: 4, HEADER: 14, BODY: 0, HEARTBEAT: 0}
"""Octets that the payload of each kind of frame has at least."""


class Connection:
    """A client's connection. `outbox` is where it enters itself when it has something to send;
    several connections share one. `now` is transport time in seconds."""

    def __init__(
        self,
        broker: Broker,
        *,
        peer: tuple[str, int],
        local: tuple[str, int],
        outbox: list[Connection],
        now: float,
        login_failure_delay_s: float = LOGIN_FAILURE_DELAY_S,
    ) -> None:
        self.broker = broker
        self.peer_host, self.peer_port = peer
        self.name = f"{peer[0]}:{peer[1]} -> {local[0]}:{local[1]}"
        self.connected_at = now
        self.state = ConnectionState.AWAITING_HEADER
        self.heartbeat = Heartbeat(0, now)
        self.frame_max = FRAME_MAX_BEFORE_TUNE
        self.channel_max = 0
        self.channels: dict[int, Channel] = {}
        self.client_properties: Table = {}
        self.capabilities: frozenset[str] = frozenset()
        # Set by start-ok and open; nothing asks for them before.
        self.user: User
        self.vhost: VHost
        # Exclusive queues of this connection, which end with it.
        self.exclusive_queues: dict[Queue, None] = {}
        # Channels with publishes to confirm at the end of this batch.
        self.confirming: dict[Channel, None] = {}
        self.was_open = False
        # Where in the chunk parsing goes on; also after an error.
        self.position = 0
        # Seconds until the socket is to be closed, 0 at once; None while it stays.
        self.close_in_s: float | None = None
        self.close_reason = ""
        # Publishing waits for memory: input stays in `_rest`, from the first publish on.
        self.is_blocked = False
        self._rest = b""
        self._login_failure_delay_s = login_failure_delay_s
        self._outbox = outbox
        self._out: list[bytes] = []
        self._out_size = 0
        # The socket takes no more for now.
        self.is_congested = False
        # Consumers were left waiting because there was no room for output.
        self.is_starved = False

    # Input

    def receive_data(self, octets: bytes, now: float) -> None:
        """Handles a chunk. It raises nothing: what is wrong with it is answered."""
        self.heartbeat.last_received = now
        self._handle(self._rest + octets if self._rest else octets)

    def _handle(self, chunk: bytes) -> None:
        self.position = 0
        try:
            if self.state is ConnectionState.AWAITING_HEADER:
                self._read_protocol_header(chunk)
            self._read_frames(chunk)
        except AMQPError as error:
            self._fail(error, 0)
        except Exception as error:
            self.broker.note("internal_error", {"connection": self.name, "error": error})
            self._fail(AMQPError(ReplyCode.INTERNAL_ERROR, "see the broker's log", 0), 0)
        if self.state is ConnectionState.CLOSED:
            self._rest = b""
        else:
            self._rest = chunk[self.position :] if self.position else chunk
        self._end_batch()

    def _end_batch(self) -> None:
        self.broker.run_deliveries()
        if self.confirming:
            for channel in self.confirming:
                if channel.state is ChannelState.RUNNING:
                    channel.flush_confirms()
            self.confirming.clear()

    def receive_eof(self) -> None:
        """The client, or the network, is gone."""
        if not self.close_reason:
            self.close_reason = "client closed the socket"
        self._close_now()

    def _read_protocol_header(self, chunk: bytes) -> None:
        if not PROTOCOL_HEADER.startswith(chunk[:8]) and not _is_older_header(chunk):
            self.close_reason = _name_hello(chunk)
            self.output(8).append(PROTOCOL_HEADER)
            self.position = len(chunk)
            self._close_now()
            return
        if len(chunk) >= 8:
            self.position = 8
            self.state = ConnectionState.STARTING
            start(self)

    def _read_frames(self, chunk: bytes) -> None:
        """Takes frame after frame, the hot ones by the run. `self.position` is always behind the
        last frame that was taken."""
        size = len(chunk)
        unpack = FRAME_HEADER.unpack_from
        channels = self.channels
        startswith = chunk.startswith
        while size - (at := self.position) >= 7 and self.state is not ConnectionState.CLOSED:
            kind, number, length = unpack(chunk, at)
            end = at + FRAME_OVERHEAD + length
            if end > size or length > self.frame_max - FRAME_OVERHEAD:
                if self._is_too_large(length):
                    raise too_large(kind, length, self.frame_max)
                if end > size:
                    return
            if chunk[end - 1] != FRAME_END:
                raise frame_end_error(kind, chunk[at + 7 : end - 1], chunk[end - 1])
            try:
                channel = channels.get(number)
                if (
                    kind == METHOD
                    and channel is not None
                    and channel.assembly is None
                    and channel.state is ChannelState.RUNNING
                ):
                    if startswith(_PUBLISH_INDEX, at + 7):
                        if self._must_wait():
                            return
                        self.position = batch.read_publishes(channel, chunk, at, end)
                        if self.position == at:
                            return
                        continue
                    if startswith(_ACK_INDEX, at + 7) and channel.transaction is None:
                        self.position = batch.read_acks(channel, chunk, at)
                        if self.position != at:
                            continue
                self.position = end
                self._receive_frame(kind, number, chunk[at + 7 : end - 1])
            except AMQPError as error:
                if self.position == at:
                    self.position = end
                if error.method_index is None:
                    error.method_index = _index_of(kind, chunk[at + 7 : end - 1])
                self._fail(error, number)

    def _is_too_large(self, length: int) -> bool:
        return length > self.frame_max - FRAME_OVERHEAD + FRAME_SIZE_FUDGE

    def _receive_frame(self, kind: int, number: int, payload: bytes) -> None:
        """One frame off the hot path."""
        if len(payload) < _PAYLOAD_MIN.get(kind, 1 << 32) or (kind == HEARTBEAT and payload):
            raise frame_error(kind, payload, "unknown_frame")
        if kind == HEARTBEAT:
            if number:
                raise unexpected_frame(kind, payload)
            return
        if number == 0:
            self._receive_on_channel_zero(kind, payload)
            return
        if self.state is not ConnectionState.RUNNING:
            if self.state in HANDSHAKE:
                raise unexpected_frame(kind, payload)
            return
        channel = self.channels.get(number)
        if channel is None:
            self._receive_on_closed_channel(kind, number, payload)
        elif channel.state is ChannelState.CLOSING:
            self._receive_while_closing(channel, kind, payload)
        elif channel.assembly is not None:
            self._receive_content(channel, channel.assembly, kind, payload)
        elif kind == METHOD:
            self._receive_method(channel, payload)
        else:
            raise AMQPError(
                ReplyCode.UNEXPECTED_FRAME,
                "expected method frame, got non method frame instead",
                0,
            )

    def _receive_on_channel_zero(self, kind: int, payload: bytes) -> None:
        if kind != METHOD:
            raise unexpected_frame(kind, payload)
        method = decode_method(payload)
        if type(method) not in LEGAL[self.state]:
            if self.state is ConnectionState.CLOSING:
                return
            raise AMQPError(
                ReplyCode.CHANNEL_ERROR,
                f"unexpected method in connection state {self.state.value}",
            )
        self.broker.run_deliveries()
        CONNECTION_METHODS[type(method)](self, method)

    def _receive_on_closed_channel(self, kind: int, number: int, payload: bytes) -> None:
        if kind != METHOD:
            raise AMQPError(
                ReplyCode.UNEXPECTED_FRAME,
                "expected method frame, got non method frame instead",
                0,
            )
        index = int.from_bytes(payload[:4], "big")
        method = decode_method(payload)
        if index != _CHANNEL_OPEN:
            raise AMQPError(ReplyCode.CHANNEL_ERROR, "expected 'channel.open'")
        if len(self.channels) >= self.channel_max:
            raise AMQPError(
                ReplyCode.NOT_ALLOWED,
                f"number of channels opened ({len(self.channels)}) has reached the negotiated "
                f"channel_max ({self.channel_max})",
                0,
            )
        if number > self.channel_max:
            raise AMQPError(
                ReplyCode.CHANNEL_ERROR,
                f"channel number {number} is above the negotiated channel_max ({self.channel_max})",
            )
        channel = self.channels[number] = Channel(self, number, self.vhost)
        self.broker.counters.channels_opened += 1
        channel.send(make(commands.Channel.OpenOk, channel_id=""))

    def _receive_while_closing(self, channel: Channel, kind: int, payload: bytes) -> None:
        """After channel.close was sent, all but its answer and a channel.close is dropped."""
        if kind != METHOD:
            return
        method = decode_method(payload)
        if isinstance(method, commands.Channel.CloseOk):
            self.forget_channel(channel)
        elif isinstance(method, commands.Channel.Close):
            channel.send(commands.Channel.CloseOk())

    def _receive_method(self, channel: Channel, payload: bytes) -> None:
        method = decode_method(payload)
        if isinstance(method, commands.Basic.Publish):
            channel.assembly = Assembly(find_route(channel, payload))
            return
        # What was published and acknowledged before this method comes before it.
        self.broker.run_deliveries()
        handler = CHANNEL_METHODS.get(type(method))
        if handler is None:
            raise AMQPError(ReplyCode.COMMAND_INVALID, "unimplemented method")
        handler(channel, method)

    def _receive_content(
        self, channel: Channel, assembly: Assembly, kind: int, payload: bytes
    ) -> None:
        if assembly.header is None:
            if kind != HEADER:
                raise AMQPError(
                    ReplyCode.UNEXPECTED_FRAME,
                    "expected content header for class 60, got non content header frame instead",
                    PUBLISH,
                )
            assembly.add_header(channel, payload)
        elif kind != BODY:
            raise AMQPError(
                ReplyCode.UNEXPECTED_FRAME,
                "expected content body, got non content body frame instead",
                PUBLISH,
            )
        else:
            assembly.add_body(payload)
        if assembly.is_complete:
            channel.assembly = None
            self._publish_assembled(channel, assembly)

    def _publish_assembled(self, channel: Channel, assembly: Assembly) -> None:
        route = assembly.route
        message = assembly.message(channel)
        resolve(channel, route)
        self.broker.counters.message_sizes.observe([assembly.body_size])
        if is_special(assembly.flags, message[0][: message[1]]):
            publish_special(channel, route, message)
        else:
            publish(channel, route, [message])

    # Memory

    def _must_wait(self) -> bool:
        """Whether this connection has to stop at a publish, because memory is short."""
        if not self.broker.check_memory():
            return False
        if not self.is_blocked:
            self.is_blocked = True
            self.heartbeat.is_paused = True
            self.broker.blocked.append(self)
            if self.understands("connection.blocked"):
                self.send_method(0, make(commands.Connection.Blocked, reason="low on memory"))
        return True

    def unblock(self, now: float) -> None:
        """Memory is there again: tells the client and handles what has waited."""
        if not self.is_blocked:
            return
        self.is_blocked = False
        self.heartbeat.is_paused = False
        self.heartbeat.last_received = now
        if self.state is ConnectionState.RUNNING:
            if self.understands("connection.blocked"):
                self.send_method(0, commands.Connection.Unblocked())
            self._handle(self._rest)

    # Output

    def output(self, size: int) -> list[bytes]:
        """The list that collects octets to send, of which `size` are about to be added."""
        if not self._out:
            self._outbox.append(self)
        self._out_size += size
        return self._out

    def output_room(self) -> int:
        """Octets that may still be collected in this batch."""
        return OUTPUT_MAX - self._out_size

    def can_take_output(self) -> bool:
        """Whether consumers may add to the output; if not, they are woken when they may."""
        if self.is_congested or self._out_size >= OUTPUT_MAX:
            self.is_starved = True
            return False
        return True

    def send_method(self, channel: int, method: Method) -> None:
        """Queues a method frame."""
        octets = encode_method(channel, method)
        self.output(len(octets)).append(octets)

    def data_to_send(self) -> bytes:
        """Takes what is to be sent."""
        octets = b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        return octets

    def resume_output(self) -> None:
        """There is room for output again: consumers that had to wait go on."""
        self.is_congested = False
        if self.is_starved:
            self.is_starved = False
            for channel in self.channels.values():
                channel.wake_consumers()
            self._end_batch()

    # Time

    def next_deadline(self) -> float | None:
        """When `tick` wants to be called, in transport time; None for never."""
        if self.state is ConnectionState.RUNNING:
            return self.heartbeat.next_deadline()
        return None

    def tick(self, now: float) -> None:
        """Sends a heartbeat, or gives up on a silent client."""
        if self.state is not ConnectionState.RUNNING:
            return
        beat = self.heartbeat.check(now)
        if beat is Beat.SEND:
            self.heartbeat.last_sent = now
            self.output(len(HEARTBEAT_FRAME)).append(HEARTBEAT_FRAME)
        elif beat is Beat.GIVE_UP:
            self.close_reason = (
                f"missed heartbeats from client, timeout: {self.heartbeat.interval_s}s"
            )
            self._close_now()

    # Capabilities and queues

    @property
    def client_name(self) -> str:
        """The name the client gave itself (`connection_name`), or empty."""
        field = self.client_properties.get("connection_name")
        return str(field.value) if field is not None and field.type == "longstr" else ""

    def understands(self, capability: str) -> bool:
        """Whether the client announced this capability in start-ok."""
        return capability in self.capabilities

    def after_consumer_left(self, vhost: VHost, consumer: Consumer) -> None:
        """The last consumer of an auto-delete queue takes the queue with it."""
        queue = consumer.queue
        if queue.auto_delete and not len(queue.consumers) and not queue.is_deleted:
            self.delete_queue(vhost, queue)

    def delete_queue(
        self, vhost: VHost, queue: Queue, *, if_unused: bool = False, if_empty: bool = False
    ) -> int:
        """Deletes a queue and returns how many ready messages it had."""
        count = vhost.delete_queue(queue, if_unused=if_unused, if_empty=if_empty)
        if isinstance(queue.owner, Connection):
            queue.owner.exclusive_queues.pop(queue, None)
        return count

    # The end

    def _fail(self, error: AMQPError, number: int) -> None:
        """Closes the channel or the connection as this error wants."""
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        if self.state in HANDSHAKE:
            self._fail_handshake(error)
            return
        index = error.method_index or 0
        channel = self.channels.get(number)
        if error.is_hard or channel is None:
            self.broker.note(
                "connection_error", {"connection": self.name, "text": error.reply_text}
            )
            self.close(error.code, error.reply_text, index)
            return
        self.broker.note(
            "channel_error",
            {"connection": self.name, "channel": number, "text": error.reply_text},
        )
        if channel.is_confirming:
            channel.flush_confirms()
        channel.state = ChannelState.CLOSING
        channel.release()
        channel.send(
            make(
                commands.Channel.Close,
                reply_code=int(error.code),
                reply_text=error.reply_text,
                class_id=index >> 16,
                method_id=index & 0xFFFF,
            )
        )

    def _fail_handshake(self, error: AMQPError) -> None:
        """Before the login the client is not trusted: failures end in silence, after a while."""
        self.close_reason = self.close_reason or error.reply_text
        self.broker.note("handshake_error", {"connection": self.name, "text": error.reply_text})
        if error.code in (ReplyCode.NOT_ALLOWED, ReplyCode.UNEXPECTED_FRAME) and self.state in (
            ConnectionState.TUNING,
            ConnectionState.OPENING,
        ):
            self.close(error.code, error.reply_text, error.method_index or 0)
            return
        self.close_silently()

    def close_silently(self) -> None:
        """Ends the connection without a word, after a while."""
        self.state = ConnectionState.CLOSED
        self._outbox.append(self)
        self.close_in_s = self._login_failure_delay_s

    def close(self, code: ReplyCode, reply_text: str, index: int = 0) -> None:
        """Sends connection.close and lets go of everything; the client has a while to answer.

        `reply_text` is the whole text, `index` the method that failed.
        """
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        self.close_reason = self.close_reason or reply_text
        for channel in self.channels.values():
            if channel.is_confirming and channel.state is ChannelState.RUNNING:
                channel.flush_confirms()
        self.state = ConnectionState.CLOSING
        self.release()
        self.send_method(
            0,
            make(
                commands.Connection.Close,
                reply_code=int(code),
                reply_text=reply_text,
                class_id=index >> 16,
                method_id=index & 0xFFFF,
            ),
        )
        self.close_in_s = min(CLOSE_TIMEOUT_S, self.heartbeat.interval_s or CLOSE_TIMEOUT_S)

    def _close_now(self) -> None:
        """The end of the socket, after what is still to be sent."""
        self.state = ConnectionState.CLOSED
        self._outbox.append(self)
        self.release()
        self.close_in_s = 0

    def finish(self) -> None:
        """Close and close-ok are exchanged: nothing is left but the socket."""
        self._close_now()

    def forget_channel(self, channel: Channel) -> None:
        """The channel number is free again."""
        if self.channels.pop(channel.number, None) is not None:
            self.broker.counters.channels_closed += 1
            self.confirming.pop(channel, None)

    def release(self) -> None:
        """Gives back what the connection holds: its channels and its exclusive queues."""
        for channel in list(self.channels.values()):
            channel.release()
            self.forget_channel(channel)
        for queue in list(self.exclusive_queues):
            self.delete_queue(self.vhost, queue)
        if self.is_blocked:
            self.is_blocked = False
            self.broker.blocked.remove(self)
        self.broker.remove_connection(self)
        self.broker.run_deliveries()


def _is_older_header(chunk: bytes) -> bool:
    """`AMQP 1 1 0 9` and `AMQP 1 1 9 1`-like headers of AMQP 0-9, which RabbitMQ takes as 0-9-1."""
    return any(header.startswith(chunk[:8]) for header in _OLDER_HEADERS)


_OLDER_HEADERS = (b"AMQP\x01\x01\x00\x09",)


def _name_hello(chunk: bytes) -> str:
    """What a client said that does not speak AMQP 0-9-1."""
    if chunk[:2] == b"\x16\x03":
        return "a TLS client hello came to a port without TLS"
    if chunk[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"PRI "):
        return "an HTTP request came to the AMQP port"
    if chunk[:4] == b"AMQP":
        return f"unsupported protocol version {chunk[4:8].hex(' ')}"
    return "not an AMQP protocol header"


def _index_of(kind: int, payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big") if kind == METHOD else 0
