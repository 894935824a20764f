"""The protocol errors of AMQP 0-9-1, raised where they are noticed.

Nothing here sends anything: `broker.protocol.connection` is the one place that turns an
`AMQPError` into a channel.close or a connection.close.
"""

from __future__ import annotations

import enum

REPLY_TEXT_MAX = 255
"""Bytes of a reply text on the wire: it is a short string (AMQP 0-9-1, section 4.2.5.3)."""


class ReplyCode(enum.IntEnum):
    """Reply codes of AMQP 0-9-1 (section 1.2 of its reference), with RabbitMQ's names."""

    SUCCESS = 200
    CONTENT_TOO_LARGE = 311
    NO_ROUTE = 312
    NO_CONSUMERS = 313
    CONNECTION_FORCED = 320
    INVALID_PATH = 402
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    CHANNEL_ERROR = 504
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541


_SOFT = frozenset(
    {
        ReplyCode.CONTENT_TOO_LARGE,
        ReplyCode.NO_ROUTE,
        ReplyCode.NO_CONSUMERS,
        ReplyCode.ACCESS_REFUSED,
        ReplyCode.NOT_FOUND,
        ReplyCode.RESOURCE_LOCKED,
        ReplyCode.PRECONDITION_FAILED,
    }
)


class AMQPError(Exception):
    """What the peer did wrong.

    A soft error closes the channel, a hard one (or any on channel 0) the connection.
    `explanation` is the text behind `NAME - `. `method_index` is the method that failed as
    `class_id << 16 | method_id`; `None` stands for "the method being handled", 0 for none.
    """

    def __init__(self, code: ReplyCode, explanation: str, method_index: int | None = None) -> None:
        super().__init__(explanation)
        self.code = code
        self.explanation = explanation
        self.method_index = method_index

    @property
    def is_hard(self) -> bool:
        """Whether the whole connection has to close."""
        return self.code not in _SOFT

    @property
    def reply_text(self) -> str:
        """`NAME - explanation`; above 255 bytes of UTF-8 it is cut and ends with three dots."""
        text = f"{self.code.name} - {self.explanation}".encode("utf-8", "replace")
        if len(text) > REPLY_TEXT_MAX:
            text = text[: REPLY_TEXT_MAX - 3] + b"..."
        return text.decode("utf-8", "ignore")


def queue_title(name: str, vhost: str) -> str:
    """How RabbitMQ writes a queue in reply texts."""
    return f"queue '{name}' in vhost '{vhost}'"


def exchange_title(name: str, vhost: str) -> str:
    """How RabbitMQ writes an exchange in reply texts."""
    return f"exchange '{name}' in vhost '{vhost}'"


def storage_failed(reason: str, method_index: int | None = None) -> AMQPError:
    """What cannot be made durable any more is answered with; 0 names no method."""
    return AMQPError(ReplyCode.INTERNAL_ERROR, f"storage has failed: {reason}", method_index)


def resource_locked(title: str) -> AMQPError:
    """The queue of this title is exclusive to another connection."""
    return AMQPError(
        ReplyCode.RESOURCE_LOCKED,
        f"cannot obtain exclusive access to locked {title}. It could be originally declared on"
        " another connection or the exclusive property value does not match that of the original"
        " declaration.",
    )
