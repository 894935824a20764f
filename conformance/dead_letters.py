"""What scenarios about expiry, limits and dead letters have in common: queues whose dead letters
are consumed, moments that the broker itself names, and what a dead letter tells of its death."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.fields import Typed, plain
from conformance.methods import Method
from conformance.routing import bound_queue
from conformance.session import Session


@dataclass(frozen=True, slots=True)
class Mortal:
    """A queue, and a channel that consumes its dead letters without acks.

    Dead letters go from `queue` through the default exchange to the queue `dead`.
    """

    queue: str
    dead: str
    letters: Channel

    def expect(self, *bodies: bytes) -> list[Method]:
        """The next dead letters have these bodies, in this order; returns them."""
        return [self.letters.expect_delivery(body) for body in bodies]

    def expect_none(self, channel: Channel) -> None:
        """No dead letter is under way. One is made on this channel, by a rejection; the queue
        must be empty and without consumers. It is the next that comes."""
        channel.publish(b"rejected", routing_key=self.queue)
        channel.settle(self.queue)
        found = channel.get(self.queue, no_ack=False)
        check_equal(found and found.body, b"rejected", "only message of the queue")
        assert found is not None
        channel.send("basic.reject", delivery_tag=found["delivery_tag"])
        self.expect(b"rejected")


def mortal_queue(
    s: Session, channel: Channel, arguments: Mapping[str, Any] | None = None, **fields: Any
) -> Mortal:
    """Declares a queue with these arguments, and one for its dead letters."""
    letters = s.channel()
    dead = s.queue(letters, "dead")
    letters.consume(dead, no_ack=True)
    told = {**dead_lettering_to(dead), **(arguments or {})}
    return Mortal(s.queue(channel, "mortal", arguments=told, **fields), dead, letters)


def dead_lettering_to(queue: str) -> dict[str, Any]:
    """Arguments that send dead letters to this queue through the default exchange."""
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}


def dying_queue(s: Session, channel: Channel, exchange: str, key: str | None = None) -> str:
    """A queue whose dead letters go to this exchange, with this routing key or their own."""
    arguments = {"x-dead-letter-exchange": exchange}
    if key is not None:
        arguments["x-dead-letter-routing-key"] = key
    return s.queue(channel, "dying", arguments=arguments)


def collector(s: Session, exchange: str, *keys: str, **options: Any) -> Channel:
    """A channel that consumes without acks what this exchange routes by these keys; options as
    for `bound_queue`."""
    channel = s.channel()
    channel.consume(bound_queue(s, channel, exchange, *keys, **options), no_ack=True)
    return channel


def publish_confirmed(channel: Channel, queue: str, *bodies: bytes, **properties: Any) -> None:
    """Publishes these bodies over another channel of the connection; returns when each is
    confirmed, whether acked or nacked."""
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    for body in bodies:
        publisher.publish(body, routing_key=queue, properties=properties)
    publisher.confirms(range(1, len(bodies) + 1))
    publisher.call("channel.close")


def let_pass(s: Session, milliseconds: int) -> None:
    """Returns when the broker has seen a message expire that was published with this TTL: by then
    whatever was confirmed before with the same TTL, or a lower one, is due as well."""
    channel = s.channel()
    clock = mortal_queue(s, channel, {"x-message-ttl": milliseconds})
    publish_confirmed(channel, clock.queue, b"tick")
    clock.expect(b"tick")
    channel.connection.close()
    clock.letters.connection.close()


def reject(channel: Channel, queue: str, body: bytes | None = None) -> None:
    """Fetches the next message of a queue and rejects it for good."""
    found = channel.get(queue, no_ack=False)
    if found is None or body is not None:
        check_equal(found and found.body, body, "body of the next message")
    assert found is not None
    channel.send("basic.reject", delivery_tag=found["delivery_tag"])


def deaths(letter: Method) -> list[dict[str, Any]]:
    """The entries of x-death as plain values, the time of each left out."""
    entries = letter.message.headers.get("x-death", [])
    return [{key: value for key, value in entry.items() if key != "time"} for entry in entries]


def typed_deaths(letter: Method) -> list[dict[str, Typed]]:
    """The entries of x-death with the wire types of their fields."""
    header = letter.message.typed_headers["x-death"]
    check_equal(header.tag, "A", "wire type of x-death")
    check_equal([entry.tag for entry in header.value], ["F"] * len(header.value), "entries")
    return [entry.value for entry in header.value]


def death(queue: str, reason: str, exchange: str, *keys: str) -> dict[str, Any]:
    """An entry of x-death as `deaths` shows it, that was counted once."""
    told = {"queue": queue, "reason": reason, "exchange": exchange}
    return {**told, "routing-keys": list(keys), "count": 1}


def how_it_died(letter: Method) -> list[tuple[str, str, int]]:
    """(queue, reason, count) of each entry of x-death."""
    return [(entry["queue"], entry["reason"], entry["count"]) for entry in deaths(letter)]


def other_headers(letter: Method) -> dict[str, Any]:
    """The headers, typed, that dead-lettering has not added."""
    headers = letter.message.typed_headers
    added = ("x-death", "x-first-death-", "x-last-death-")
    return {key: value for key, value in headers.items() if not key.startswith(added)}


def history(letter: Method, which: str) -> dict[str, Any]:
    """The headers x-first-death-... or x-last-death-..., each by its last word."""
    prefix = f"x-{which}-death-"
    headers = letter.message.typed_headers
    return {k.removeprefix(prefix): plain(v) for k, v in headers.items() if k.startswith(prefix)}
