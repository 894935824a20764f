"""The texts of frame-level errors, as RabbitMQ's reader writes them."""

from __future__ import annotations

from broker.errors import AMQPError, ReplyCode
from broker.wire.frames import FRAME_OVERHEAD
from exchanges.erlang import erlang_term

_SHOWN = 16


def _told(kind: int, payload: bytes) -> str:
    amount = f"first {_SHOWN}" if len(payload) > _SHOWN else "all"
    return f"type {kind}, {amount} octets = {erlang_term(payload[:_SHOWN])}"


def frame_error(kind: int, payload: bytes, problem: str) -> AMQPError:
    """A frame that cannot be one."""
    return AMQPError(ReplyCode.FRAME_ERROR, f"{_told(kind, payload)}: {problem}", 0)


def frame_end_error(kind: int, payload: bytes, octet: int) -> AMQPError:
    """A frame that does not end with 0xCE."""
    return frame_error(kind, payload, f"{{invalid_frame_end_marker,{octet}}}")


def too_large(kind: int, size: int, frame_max: int) -> AMQPError:
    """A frame above the negotiated size; noticed before its payload is read."""
    limit = frame_max - FRAME_OVERHEAD
    return frame_error(kind, b"", f"{{frame_too_large,{size},{limit}}}")


def unexpected_frame(kind: int, payload: bytes) -> AMQPError:
    """A frame on a channel where its kind has no place."""
    return AMQPError(ReplyCode.UNEXPECTED_FRAME, _told(kind, payload), 0)
