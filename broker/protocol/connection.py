"""One connection: octets in, octets out, everything between.

`receive_data` takes a chunk, handles what is complete in it, lets the touched queues deliver, and
confirms. What is to be sent collects in `output` until `data_to_send` takes it. This is the one
place where an `AMQPError` becomes a channel.close or a connection.close.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from broker.core.consumer import Consumer
from broker.core.queue import Queue
from broker.errors import AMQPError, ReplyCode
from broker.protocol.channel import Channel, ChannelState
from broker.protocol.heartbeat import Beat, Heartbeat
from broker.protocol.output import Output
from broker.protocol.reader import (
    PROTOCOL_HEADER_SIZE,
    frame_size,
    read_frames,
    read_protocol_header,
    take_body_frame,
)
from broker.protocol.remainder import Remainder
from broker.protocol.states import HANDSHAKE, ConnectionState
from broker.wire.frames import FRAME_HEADER, HEARTBEAT_FRAME
from broker.wire.methods import Method, commands, encode_method, make
from broker.wire.shape import Shapes

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.users import User
    from broker.core.vhost import VHost
    from broker.protocol.route import Route

FRAME_MAX_BEFORE_TUNE = 8192
"""Frame size before anything is negotiated: room for a start-ok with a long token in it."""
LOGIN_FAILURE_DELAY_S = 3.0
"""Seconds between a handshake that failed and the end of the socket, without a word, so that
guessing passwords is slow (RabbitMQ's SILENT_CLOSE_DELAY)."""
CLOSE_TIMEOUT_S = 30.0
"""Seconds a client has to answer connection.close."""
CLOSE_WHEN_BROKEN_S = 1.0
"""Seconds to read connection.close before the end, for a client whose frames are broken."""
CLOSE_TIMEOUT_BEFORE_LOGIN_S = 5.0
"""The same, for one that never logged in."""


class Connection:
    """A client's connection. It enters itself in `outbox`, which several share, when it has
    something to send. `now` is transport time in seconds."""

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
        # Method frames of basic.publish and where they lead; shapes of content headers.
        self.routes: dict[bytes, Route] = {}
        self.shapes = Shapes()
        # A field table as octets, which take a sixtieth of what it may take decoded.
        self.client_properties = b""
        self.client_name = ""
        self.capabilities: frozenset[str] = frozenset()
        self.user: User
        self.vhost: VHost
        # They end with this connection.
        self.exclusive_queues: dict[Queue, None] = {}
        # They have publishes to confirm at the end of this batch.
        self.confirming: dict[Channel, None] = {}
        self.was_open = self.has_received = self.is_broken = False
        # Where in the chunk parsing goes on; also after an error.
        self.position = 0
        # Seconds until the socket is closed; None while it stays.
        self.close_in_s: float | None = None
        self.close_reason = ""
        # Publishing waits for memory: input stays in `_rest`, from the first publish on.
        self.is_blocked = False
        # The reader stopped to let others have a turn; `resume_input` goes on.
        self.wants_turn = False
        # An answer is to come before anything else is read (`waiting`), or has come just now.
        self.is_waiting = self.has_waited = False
        # Consumers whose queue went in the meantime.
        self.told_later: list[Consumer] = []
        # Input that waits: a frame that has begun, or all of it.
        self._rest = Remainder()
        self._login_failure_delay_s = login_failure_delay_s
        self.output = Output(lambda: outbox.append(self))
        self._outbox = outbox

    # Input

    def receive_data(self, octets: bytes, now: float) -> None:
        """Handles a chunk. It raises nothing: what is wrong with it is answered."""
        self.has_received = True
        self.heartbeat.last_received = now
        at = self._complete_frame(octets) if self._rest else 0
        if self.is_broken:
            return
        if self.is_blocked or self.wants_turn or self.is_waiting:
            self._rest.add(octets, at, len(octets))
        elif at < len(octets):
            self._handle(octets, at)

    def _complete_frame(self, octets: bytes) -> int:
        """Handles the frame that began in an earlier chunk, if its end is here, and returns where
        the next one begins. So a chunk is never copied for the sake of a few octets before it."""
        if self.is_blocked or self.wants_turn or self.is_waiting:
            return 0
        rest = self._rest
        if self.state is ConnectionState.AWAITING_HEADER:
            at, size = 0, PROTOCOL_HEADER_SIZE
        else:
            at = min(len(octets), max(0, FRAME_HEADER.size - len(rest)))
            rest.add(octets, 0, at)
            size = frame_size(rest, self.frame_max)
        end = min(len(octets), at + max(0, size - len(rest)))
        rest.add(octets, at, end)
        if len(rest) >= size and not take_body_frame(self, rest):
            self._handle(rest.take(), 0)
        return end

    def resume_input(self) -> None:
        """Handles what has waited."""
        self.wants_turn = False
        if not self.is_blocked and not self.is_waiting:
            self._handle(self._rest.take(), 0)

    def continue_input(self) -> None:
        """What was waited for is there."""
        self.has_waited = True
        self._outbox.append(self)
        self.resume_input()

    def _handle(self, chunk: bytes, at: int) -> None:
        """Handles `chunk[at:]`, keeps what has to wait, and ends the batch."""
        self.position = at
        try:
            if self.state is ConnectionState.AWAITING_HEADER:
                read_protocol_header(self, chunk)
            if self.state is not ConnectionState.AWAITING_HEADER:
                read_frames(self, chunk)
        except AMQPError as error:
            self.fail(error, 0)
            self._drop_input()
        except Exception as error:  # noqa: BLE001  # a bug of ours ends this connection alone
            self._break(error)
        if self.state is not ConnectionState.CLOSED and self.position < len(chunk):
            self._rest.add(chunk, self.position, len(chunk))
        try:
            self._end_batch()
        except Exception as error:  # noqa: BLE001  # as above
            self._break(error)

    def _end_batch(self) -> None:
        self.broker.run_deliveries()
        if self.confirming:
            self.flush_confirms()

    def flush_confirms(self) -> None:
        """Confirms what was published in this batch."""
        for channel in self.confirming:
            if channel.state is ChannelState.RUNNING:
                channel.flush_confirms()
        self.confirming.clear()

    def receive_eof(self) -> None:
        """The client, or the network, is gone."""
        if not self.close_reason:
            self.close_reason = "client closed the socket"
        self.finish()

    # Memory

    def unblock(self, now: float) -> None:
        """Memory is there again: tells the client and handles what has waited."""
        if not self.is_blocked:
            return
        self.is_blocked = False
        self.heartbeat.resume(now)
        if self.state is ConnectionState.RUNNING:
            if self.understands("connection.blocked"):
                self.send_method(0, commands.Connection.Unblocked())
            self.resume_input()

    # Output

    def send_method(self, channel: int, method: Method) -> None:
        """Queues a method frame."""
        octets = encode_method(channel, method)
        self.output.reserve(len(octets)).append(octets)

    def data_to_send(self) -> bytes:
        """Takes what is to be sent. (`output.take` does without copying large pieces.)"""
        return b"".join(self.output.take())

    def resume_output(self) -> None:
        """The socket takes output again: consumers that had to wait go on."""
        self.output.is_congested = False
        self.continue_output()

    def continue_output(self) -> None:
        """What was collected is written: consumers that had to wait go on if it was taken."""
        if self.output.is_starved and not self.output.is_congested:
            self.output.is_starved = False
            left = [
                consumer
                for channel in self.channels.values()
                for consumer in channel.consumers.values()
                if not consumer.is_waiting
            ]
            for consumer in sorted(left, key=attrgetter("left_at")):  # in the old order
                consumer.wake()
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
            self.output.reserve(len(HEARTBEAT_FRAME)).append(HEARTBEAT_FRAME)
        elif beat is Beat.GIVE_UP:
            self.close_reason = (
                f"missed heartbeats from client, timeout: {self.heartbeat.interval_s}s"
            )
            self.finish()

    # Capabilities and queues

    def understands(self, capability: str) -> bool:
        """Whether the client announced this capability in start-ok."""
        return capability in self.capabilities

    def after_consumer_left(self, vhost: VHost, consumer: Consumer) -> None:
        """The last consumer of an auto-delete queue takes the queue with it."""
        queue = consumer.queue
        if queue.auto_delete and not len(queue.consumers) and not queue.is_deleted:
            self.delete_queue(vhost, queue)

    def delete_queue(self, vhost: VHost, queue: Queue, **conditions: bool) -> int:
        """Deletes a queue and returns how many ready messages it had; `VHost.delete_queue` says on
        which conditions."""
        count = vhost.delete_queue(queue, **conditions)
        if isinstance(queue.owner, Connection):
            queue.owner.exclusive_queues.pop(queue, None)
        return count

    # The end

    def fail(self, error: AMQPError, number: int) -> None:
        """Closes the channel or the connection as this error wants."""
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        if self.state in HANDSHAKE:
            self._fail_handshake(error)
            return
        self.broker.run_deliveries()  # what was published before comes before the error
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
        self.flush_confirms()
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
        patience = CLOSE_TIMEOUT_S if self.was_open else CLOSE_TIMEOUT_BEFORE_LOGIN_S
        self.close_in_s = min(patience, self.heartbeat.interval_s or patience)

    def _break(self, error: Exception) -> None:
        """A bug of ours: the trace goes to the log, the client hears that there is one."""
        self.broker.note("internal_error", {"connection": self.name, "error": error})
        self.fail(AMQPError(ReplyCode.INTERNAL_ERROR, "see the broker's log", 0), 0)
        self._drop_input()

    def _drop_input(self) -> None:
        """After broken frames nothing can be told from garbage: no more is read."""
        self.is_broken = True
        self._rest.clear()
        self.position = 1 << 62
        if self.state is ConnectionState.CLOSING:
            self.close_in_s = CLOSE_WHEN_BROKEN_S

    def finish(self) -> None:
        """Nothing is left but the socket, which ends after what is still to be sent."""
        self.state = ConnectionState.CLOSED
        self._outbox.append(self)
        self.release()
        self.close_in_s = 0

    def forget_channel(self, channel: Channel) -> None:
        """The channel number is free again."""
        if self.channels.pop(channel.number, None) is not None:
            self.broker.counters.channels_closed += 1
            self.confirming.pop(channel, None)

    def release(self) -> None:
        """Gives back what the connection holds: its channels and its exclusive queues."""
        for channel in self.channels.values():  # what one gives back must not go to another
            channel.stop_consuming()
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
