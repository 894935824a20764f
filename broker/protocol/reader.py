"""Frames to methods and contents: which frame may come where, and who handles it.

Everything here works on a `Connection`; what it raises, `Connection` answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import AMQPError, ReplyCode
from broker.protocol import batch
from broker.protocol.assembly import NO_HEADER, PUBLISH, SMALL, Assembly
from broker.protocol.channel import Channel, ChannelState
from broker.protocol.frame_errors import frame_end_error, frame_error, too_large, unexpected_frame
from broker.protocol.memory import is_refusing, must_stay, pause
from broker.protocol.methods import CHANNEL_METHODS, CONNECTION_METHODS
from broker.protocol.methods.connection import start
from broker.protocol.output import OUTPUT_MAX
from broker.protocol.publish import publish, publish_special
from broker.protocol.publish_checks import is_special
from broker.protocol.refusal import RefusedContent
from broker.protocol.remainder import Remainder
from broker.protocol.route import origin_of, resolve
from broker.protocol.states import HANDSHAKE, LEGAL, ConnectionState
from broker.wire.frames import (
    BODY,
    CONTENT_HEADER,
    FRAME_END,
    FRAME_HEADER,
    FRAME_OVERHEAD,
    FRAME_SIZE_FUDGE,
    HEADER,
    HEARTBEAT,
    METHOD,
    PROTOCOL_HEADER,
)
from broker.wire.methods import commands, decode_method, make

if TYPE_CHECKING:
    from broker.protocol.connection import Connection

_PUBLISH_INDEX = PUBLISH.to_bytes(4, "big")
_ACK_INDEX = b"\x00\x3c\x00\x50"
_PAYLOAD_MIN = {METHOD: 4, HEADER: 14, BODY: 0, HEARTBEAT: 0}
"""Octets that the payload of each kind of frame has at least."""
_OLDER_HEADERS = (b"AMQP\x01\x01\x00\x09",)
"""Headers of AMQP 0-9, which RabbitMQ takes as 0-9-1."""
PROTOCOL_HEADER_SIZE = len(PROTOCOL_HEADER)
WORK_MAX = 20_000
"""Messages moved for one connection (queued, delivered, settled, returned) before the others have
a turn: some 20 ms. A frame of 12 octets may move thousands."""
_PAYLOAD_BEYOND = FRAME_SIZE_FUDGE - FRAME_OVERHEAD
"""Octets that a payload may have more than a frame."""
_NOT_A_METHOD = "expected method frame, got non method frame instead"


def is_protocol_header(chunk: bytes) -> bool:
    """Whether the octets begin a protocol header that is understood, as far as they go."""
    begin = chunk[:8]
    return any(header.startswith(begin) for header in (PROTOCOL_HEADER, *_OLDER_HEADERS))


def name_hello(chunk: bytes) -> str:
    """What a client said that does not speak AMQP 0-9-1."""
    if chunk[:2] == b"\x16\x03":
        return "a TLS client hello came to a port without TLS"
    if chunk[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"PRI "):
        return "an HTTP request came to the AMQP port"
    if chunk[:4] == b"AMQP":
        return f"unsupported protocol version {chunk[4:8].hex(' ')}"
    return "not an AMQP protocol header"


def read_protocol_header(connection: Connection, chunk: bytes) -> None:
    """The first octets of a client: answered with connection.start, or with the header that was
    expected and the end of the socket. Fewer than eight are left for later."""
    if not is_protocol_header(chunk):
        connection.close_reason = name_hello(chunk)
        connection.output.reserve(len(PROTOCOL_HEADER)).append(PROTOCOL_HEADER)
        connection.position = len(chunk)
        connection.finish()
    elif len(chunk) >= len(PROTOCOL_HEADER):
        connection.position = len(PROTOCOL_HEADER)
        connection.state = ConnectionState.STARTING
        start(connection)


def frame_size(begin: Remainder, frame_max: int) -> int:
    """How many octets the frame takes that begins like this; the length of `begin` itself if it
    can be judged already. Before 7 octets are there, it says 7."""
    if len(begin) < FRAME_HEADER.size:
        return FRAME_HEADER.size
    length = int.from_bytes(begin.begin(FRAME_HEADER.size)[3:], "big")
    return len(begin) if length > payload_max(frame_max) else FRAME_OVERHEAD + length


def payload_max(frame_max: int) -> int:
    """Octets that the payload of a frame may have."""
    return frame_max + _PAYLOAD_BEYOND


def read_frames(connection: Connection, chunk: bytes) -> None:
    """Takes frame after frame, the hot ones by the run. `connection.position` is always behind
    the last frame that was taken. Raises AMQPError where the frames themselves are broken."""
    size = len(chunk)
    unpack = FRAME_HEADER.unpack_from
    broker, output = connection.broker, connection.output
    work_max = broker.work + WORK_MAX
    while (
        size - (at := connection.position) >= FRAME_HEADER.size
        and connection.state is not ConnectionState.CLOSED
    ):
        if output.size >= OUTPUT_MAX or broker.work > work_max:
            connection.wants_turn = True
            return
        kind, number, length = unpack(chunk, at)
        end = at + FRAME_OVERHEAD + length
        if length > connection.frame_max + _PAYLOAD_BEYOND:
            raise too_large(kind, length, connection.frame_max)
        if end > size:
            return
        if chunk[end - 1] != FRAME_END:
            raise frame_end_error(kind, chunk[at + 7 : end - 1], chunk[end - 1])
        try:
            channel = connection.channels.get(number)
            if channel is not None and _read_hot(channel, chunk, at, end):
                if connection.is_blocked:
                    return
                continue
            connection.position = end
            _receive_frame(connection, kind, number, chunk[at + 7 : end - 1])
            if connection.is_waiting:
                return
        except AMQPError as error:
            connection.position = max(connection.position, end)
            if error.method_index is None:
                error.method_index = _index_of(kind, chunk[at + 7 : end - 1])
            connection.fail(error, number)


def take_body_frame(connection: Connection, frame: Remainder) -> bool:
    """Takes a body frame in pieces, if it is whole, nothing is wrong with it, and it is not the
    last one of its content. False, with nothing done, if it is to be read as all others are."""
    if connection.state is not ConnectionState.RUNNING or connection.output.is_full():
        return False
    kind, number, length = FRAME_HEADER.unpack(frame.begin(FRAME_HEADER.size))
    channel = connection.channels.get(number)
    if kind != BODY or len(frame) != FRAME_OVERHEAD + length or channel is None:
        return False
    assembly = channel.assembly
    if (
        assembly is None
        or assembly.header is None
        or channel.state is not ChannelState.RUNNING
        or not SMALL <= length <= connection.frame_max - FRAME_OVERHEAD
        or assembly.received + length >= assembly.body_size
        or frame.last() != FRAME_END
        or connection.broker.has_alarm()
    ):
        return False
    assembly.add_frame(channel, length, frame.take_pieces())
    return True


def _read_hot(channel: Channel, chunk: bytes, at: int, end: int) -> bool:
    """Takes a run of publishes or acknowledgements, or a body frame; False if the frame is none of
    them. If a publish has to wait for memory, it is left where it is; if it is refused, its content
    is read as one in several frames."""
    if channel.state is not ChannelState.RUNNING:
        return False
    connection = channel.connection
    kind = chunk[at]
    assembly = channel.assembly
    if assembly is not None:
        if kind != BODY or assembly.header is None:
            return False
        if must_stay(channel):
            return True
        connection.position = end
        assembly.add_body(channel, chunk, at, end)
        if assembly.is_complete:
            _publish_assembled(channel, assembly)
        return True
    if kind != METHOD:
        return False
    if chunk.startswith(_PUBLISH_INDEX, at + 7):
        if not connection.broker.has_alarm():
            connection.position = batch.read_publishes(channel, chunk, at, end)
        elif is_refusing(channel):
            connection.position = batch.read_refused(channel, chunk, at, end)
        else:
            pause(connection)
        return True
    if chunk.startswith(_ACK_INDEX, at + 7) and channel.transaction is None:
        connection.position = batch.read_acks(channel, chunk, at)
        return connection.position != at
    return False


def _receive_frame(connection: Connection, kind: int, number: int, payload: bytes) -> None:
    """One frame off the hot path."""
    if len(payload) < _PAYLOAD_MIN.get(kind, 1 << 32) or (kind == HEARTBEAT and payload):
        raise frame_error(kind, payload, "unknown_frame")
    if kind == HEARTBEAT:
        if number:
            raise unexpected_frame(kind, payload)
        return
    if number == 0:
        _receive_on_channel_zero(connection, kind, payload)
        return
    if connection.state is not ConnectionState.RUNNING:
        if connection.state in HANDSHAKE:
            raise unexpected_frame(kind, payload)
        return
    channel = connection.channels.get(number)
    if channel is None:
        _receive_on_closed_channel(connection, kind, number, payload)
    elif channel.state is ChannelState.CLOSING:
        _receive_while_closing(channel, kind, payload)
    elif channel.assembly is not None:
        _receive_content(channel, channel.assembly, kind, payload)
    elif kind == METHOD:
        _receive_method(channel, payload)
    else:
        raise AMQPError(
            ReplyCode.UNEXPECTED_FRAME,
            _NOT_A_METHOD,
            0,
        )


def _receive_on_channel_zero(connection: Connection, kind: int, payload: bytes) -> None:
    if kind != METHOD:
        raise unexpected_frame(kind, payload)
    method = decode_method(payload)
    if type(method) not in LEGAL[connection.state]:
        if connection.state is ConnectionState.CLOSING:
            return
        raise AMQPError(
            ReplyCode.CHANNEL_ERROR,
            f"unexpected method in connection state {connection.state.value}",
        )
    connection.broker.run_deliveries()
    CONNECTION_METHODS[type(method)](connection, method)


def _receive_on_closed_channel(
    connection: Connection, kind: int, number: int, payload: bytes
) -> None:
    if kind != METHOD:
        raise AMQPError(
            ReplyCode.UNEXPECTED_FRAME,
            _NOT_A_METHOD,
            0,
        )
    if not isinstance(decode_method(payload), commands.Channel.Open):
        raise AMQPError(ReplyCode.CHANNEL_ERROR, "expected 'channel.open'")
    if len(connection.channels) >= connection.channel_max:
        raise AMQPError(
            ReplyCode.NOT_ALLOWED,
            f"number of channels opened ({len(connection.channels)}) has reached the negotiated "
            f"channel_max ({connection.channel_max})",
            0,
        )
    if number > connection.channel_max:
        raise AMQPError(
            ReplyCode.CHANNEL_ERROR,
            f"channel number {number} is above the negotiated channel_max "
            f"({connection.channel_max})",
        )
    channel = connection.channels[number] = Channel(connection, number, connection.vhost)
    connection.broker.counters.channels_opened += 1
    channel.send(make(commands.Channel.OpenOk, channel_id=""))


def _receive_while_closing(channel: Channel, kind: int, payload: bytes) -> None:
    """After channel.close was sent, all but its answer and a channel.close is dropped."""
    if kind != METHOD:
        return
    method = decode_method(payload)
    if isinstance(method, commands.Channel.CloseOk):
        channel.connection.forget_channel(channel)
    elif isinstance(method, commands.Channel.Close):
        channel.send(commands.Channel.CloseOk())


def _receive_method(channel: Channel, payload: bytes) -> None:
    method = decode_method(payload)
    # What was published and acknowledged before this method comes before it.
    channel.connection.broker.run_deliveries()
    handler = CHANNEL_METHODS.get(type(method))
    if handler is None:
        raise AMQPError(ReplyCode.COMMAND_INVALID, "unimplemented method")
    handler(channel, method)


def _receive_content(channel: Channel, assembly: Assembly, kind: int, payload: bytes) -> None:
    if assembly.header is not None:
        raise AMQPError(
            ReplyCode.UNEXPECTED_FRAME,
            "expected content body, got non content body frame instead",
            PUBLISH,
        )
    if kind != HEADER:
        raise AMQPError(ReplyCode.UNEXPECTED_FRAME, NO_HEADER, PUBLISH)
    assembly.add_header(channel, payload)
    if assembly.is_complete:
        _publish_assembled(channel, assembly)


def _publish_assembled(channel: Channel, assembly: Assembly) -> None:
    if isinstance(assembly, RefusedContent):
        batch.end_refused(channel, assembly)
        return
    route = assembly.route
    header = assembly.header
    assert header is not None
    # What is wrong with where it goes is found before it is put together.
    try:
        resolve(channel, route)
        origin = origin_of(route, header, CONTENT_HEADER.size, assembly.flags)
        message = assembly.message(channel, origin)
    finally:
        channel.drop_assembly()
    if is_special(assembly.flags, message[0][: message[1]]):
        publish_special(channel, route, message)
    else:
        publish(channel, route, [message])
    channel.connection.broker.counters.message_sizes.observe([assembly.body_size])


def _index_of(kind: int, payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big") if kind == METHOD else 0
