"""Direct reply-to: replies that go straight to the channel that asked (RabbitMQ, "Direct
Reply-to"). Nothing is stored; a reply to a channel that is gone goes nowhere."""

from __future__ import annotations

from typing import Protocol

from broker.core.message import Message
from broker.core.rules import NO_RULES

REPLY_TO_NAME = "amq.rabbitmq.reply-to"
"""The queue name to consume replies from, and how every reply address begins."""


class ReplySink(Protocol):
    """A channel that consumes from amq.rabbitmq.reply-to."""

    def deliver_reply(self, message: Message) -> None:
        """Sends one reply to the client."""


class ReplyChannel:
    """The destination of a reply, in the place of a queue."""

    duplicates = None
    is_deleted = False
    lasting = None
    present = None
    shares_room = False
    rules = NO_RULES

    def __init__(self, sink: ReplySink) -> None:
        self._sink = sink

    def publish(self, messages: list[Message], size: int) -> None:
        """Sends the messages at once."""
        for message in messages:
            self._sink.deliver_reply(message)
