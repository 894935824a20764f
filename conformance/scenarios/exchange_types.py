"""Exchange types that RabbitMQ has by plugins or from version 4 on: by modulus, and by chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.session import Session
from conformance.sharing import KEYS, check_share, owners, publish_keys, queues_at, taken

HASH, MODULUS, RANDOM, LOCAL = "x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"


@scenario(
    "modulus-hash.together",
    covers=["modulus-hash:together", "modulus-hash:shares"],
    exchange_type=MODULUS,
)
def modulus_of_the_routing_key_chooses_a_binding(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, MODULUS)
    queues = queues_at(s, channel, exchange, "any", "", "any")
    channel.bind(queues[2], exchange, "more")
    before = owners(channel, exchange, queues)
    check_equal(owners(channel, exchange, queues) == before, True, "keys stay where they are")
    counts = Counter(before.values())
    for queue, bindings in zip(queues, (1, 1, 2), strict=True):
        check_share(counts[queue], len(KEYS), bindings / 4)


@scenario("random.shares", covers=["random:shares"], exchange_type=RANDOM)
def chance_chooses_a_binding(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, RANDOM)
    queues = queues_at(s, channel, exchange, "any", "", "any")
    channel.bind(queues[2], exchange, "more")
    counts = Counter(owners(channel, exchange, queues).values())
    for queue, bindings in zip(queues, (1, 1, 2), strict=True):
        check_share(counts[queue], len(KEYS), bindings / 4)


@scenario("local-random.shares", covers=["local-random:shares"], exchange_type=LOCAL)
def chance_chooses_a_queue(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, LOCAL)
    queues = queues_at(s, channel, exchange, "")
    for _ in range(2):
        queue = s.queue(channel)
        # A key of its own would be the queue's name.
        channel.bind(queue, exchange, "")
        queues.append(queue)
    counts = Counter(owners(channel, exchange, queues).values())
    for queue in queues:
        check_share(counts[queue], len(KEYS), 1 / 3)


@scenario(
    "local-random.bad-binding",
    covers=["local-random:bad-key", "local-random:bad-destination"],
    exchange_type=LOCAL,
)
def local_random_exchange_takes_queues_without_keys_only(s: Session) -> None:
    channel = s.channel()
    exchange, other = s.exchange(channel, LOCAL), s.exchange(channel, "fanout")
    channel.send("queue.bind", queue=s.queue(channel), exchange=exchange, routing_key="key")
    text = "PRECONDITION_FAILED - Non empty binding 'key' key not permitted"
    channel.expect_close(406, text, "queue.bind")
    channel.reopen().send("exchange.bind", source=exchange, destination=other)
    channel.expect_close(406, "PRECONDITION_FAILED - Destination not found", "exchange.bind")


def _alternate(s: Session, kind: str) -> None:
    channel = s.channel()
    fallback = s.exchange(channel, "fanout")
    exchange = s.exchange(channel, kind, arguments={"alternate-exchange": fallback})
    channel.publish(b"back", exchange, "key", mandatory=True)
    channel.expect("basic.return", reply_code=312, exchange=exchange)
    (rest,) = queues_at(s, channel, fallback, "")
    channel.publish(b"kept", exchange, "key", mandatory=True)
    check_equal(channel.get_all(rest), [b"kept"], "messages that nothing was bound for")
    (queue,) = queues_at(s, channel, exchange, "" if kind == LOCAL else "1")
    channel.publish(b"routed", exchange, "key", mandatory=True)
    check_equal(channel.get_all(queue), [b"routed"], "messages once something is bound")
    channel.expect_silence(rest)


def _behind(s: Session, kind: str) -> None:
    channel = s.channel()
    outer, exchange = s.exchange(channel, "fanout"), s.exchange(channel, kind)
    channel.call("exchange.bind", source=outer, destination=exchange)
    inner = s.exchange(channel, "fanout")
    if kind != LOCAL:
        channel.call("exchange.bind", source=exchange, destination=inner, routing_key="1")
    queues = queues_at(s, channel, exchange, "" if kind == LOCAL else "1")
    twins = queues_at(s, channel, inner, "", "")
    publish_keys(channel, outer, KEYS[:80])
    found = taken(channel, [*queues, *twins])
    check_equal(found[twins[0]], found[twins[1]], "messages of both queues of the inner exchange")
    check_equal(
        sorted(found[queues[0]] + found[twins[0]]), sorted(KEYS[:80]), "messages, each in one place"
    )
    check_equal(bool(found[twins[0]]), kind != LOCAL, "messages behind the inner exchange")


for _kind in (HASH, MODULUS, RANDOM, LOCAL):
    _prefix = _kind.removeprefix("x-")
    for _name, _check in (("alternate", _alternate), ("exchange-to-exchange", _behind)):

        def _body(s: Session, kind: str = _kind, check: Callable[..., None] = _check) -> None:
            check(s, kind)

        scenario(f"{_prefix}.{_name}", covers=[f"exchange-types:{_name}"], exchange_type=_kind)(
            _body
        )
