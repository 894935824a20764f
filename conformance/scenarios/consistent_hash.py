"""The exchange type x-consistent-hash: queues share the keys of messages, and keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from conformance import fields
from conformance.failure import check_equal
from conformance.registry import Restart, deviation, scenario
from conformance.session import Session
from conformance.sharing import (
    KEYS,
    Properties,
    check_share,
    owners,
    publish_keys,
    queues_at,
    taken,
)
from conformance.texts import cut

HASH = "x-consistent-hash"


@scenario("consistent-hash.together", covers=["consistent-hash:together"], exchange_type=HASH)
def messages_of_one_key_are_in_one_queue_in_order(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, HASH)
    queues = queues_at(s, channel, exchange, "1", "1", "1")
    for number in range(300):
        channel.publish(b"%d %d" % (number % 30, number), exchange, f"key {number % 30}")
    found = taken(channel, queues)
    check_equal(sum(map(len, found.values())), 300, "messages in all queues")
    places = {(body.partition(" ")[0], queue) for queue in found for body in found[queue]}
    check_equal(len(places), 30, "places of 30 keys")
    check_equal(all(found.values()), True, "every queue has keys")
    for bodies in found.values():
        numbers = [int(body.partition(" ")[2]) for body in bodies]
        check_equal(numbers, sorted(numbers), "order in a queue")


@scenario("consistent-hash.weights", covers=["consistent-hash:weights"], exchange_type=HASH)
def queues_share_the_keys_by_weight(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, HASH)
    queues = queues_at(s, channel, exchange, "5", "+10", "015")
    counts = Counter(owners(channel, exchange, queues).values())
    for queue, weight in zip(queues, (5, 10, 15), strict=True):
        check_share(counts[queue], len(KEYS), weight / 30)


def check_hashed(
    s: Session, arguments: Mapping[str, str], properties: Properties, missing: Mapping[str, Any]
) -> None:
    """What the properties say decides, whatever the routing key; messages without it stay
    together."""
    channel = s.channel()
    exchange = s.exchange(channel, HASH, arguments=arguments)
    queues = queues_at(s, channel, exchange, "1", "1")
    for _ in range(2):
        publish_keys(channel, exchange, KEYS[:60], properties)
    found = taken(channel, queues)
    for bodies in found.values():
        check_equal(set(Counter(bodies).values()), {2}, "messages of each key in its queue")
    for key in KEYS[:30]:
        channel.publish(b"x", exchange, key)
        channel.publish(b"x", exchange, key, properties=missing)
    counts = sorted(len(bodies) for bodies in taken(channel, queues).values())
    # Those with other headers, and those with none.
    check_equal(counts, [0, 60], "messages without what is hashed")


@scenario(
    "consistent-hash.header",
    covers=["consistent-hash:header", "consistent-hash:missing"],
    exchange_type=HASH,
)
def value_of_a_header_decides(s: Session) -> None:
    check_hashed(
        s,
        {"hash-header": "room"},
        lambda key: {"headers": {"room": key, "other": 1}},
        {"headers": {"other": "x"}, "message_id": "x"},
    )


@scenario(
    "consistent-hash.property",
    covers=["consistent-hash:property", "consistent-hash:missing"],
    exchange_type=HASH,
)
def property_of_a_message_decides(s: Session) -> None:
    names: dict[str, Properties] = {
        "message_id": lambda key: {"message_id": key},
        "correlation_id": lambda key: {"correlation_id": key, "message_id": "same"},
        "timestamp": lambda key: {"timestamp": int(key.partition(" ")[2])},
    }
    for name, properties in names.items():
        check_hashed(s, {"hash-property": name}, properties, {"app_id": "x"})


@scenario("consistent-hash.added", covers=["consistent-hash:added"], exchange_type=HASH)
def queue_that_comes_takes_its_share_alone(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, HASH)
    queues = queues_at(s, channel, exchange, "1", "1", "1")
    before = owners(channel, exchange, queues)
    (new,) = queues_at(s, channel, exchange, "1")
    after = owners(channel, exchange, [*queues, new])
    moved = [key for key in KEYS if before[key] != after[key]]
    check_equal({after[key] for key in moved}, {new}, "where keys moved to")
    check_share(len(moved), len(KEYS), 1 / 4)


@scenario(
    "consistent-hash.removed",
    covers=["consistent-hash:removed"],
    deviations=[deviation("rabbitmq", "keys of other queues move as well")],
    exchange_type=HASH,
)
def queue_that_goes_leaves_its_share_to_the_others(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, HASH)
    first, *others = queues_at(s, channel, exchange, "1", "1", "1", "1")
    before = owners(channel, exchange, [first, *others])
    channel.call("queue.unbind", queue=first, exchange=exchange, routing_key="1")
    after = owners(channel, exchange, others)
    moved = {before[key] for key in KEYS if before[key] != after[key]}
    if s.deviates:
        check_equal(moved > {first}, True, "keys of others move")
    else:
        check_equal(moved, {first}, "whose keys move")
        check_equal({after[key] for key in KEYS if before[key] == first}, set(others), "heirs")


@scenario(
    "consistent-hash.bound-twice",
    covers=["consistent-hash:bound-twice"],
    deviations=[
        deviation(
            "rabbitmq", "a second binding of a queue changes nothing, and ends with the first"
        )
    ],
    exchange_type=HASH,
)
def weights_of_two_bindings_of_a_queue_add_up(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, HASH)
    queues = queues_at(s, channel, exchange, "1", "1")
    channel.bind(queues[0], exchange, "2")
    counts = Counter(owners(channel, exchange, queues).values())
    check_share(counts[queues[0]], len(KEYS), 1 / 2 if s.deviates else 3 / 4)
    channel.call("queue.unbind", queue=queues[0], exchange=exchange, routing_key="2")
    counts = Counter(owners(channel, exchange, queues).values())
    if s.deviates:
        check_equal(counts[queues[0]], 0, "messages of a queue that is still bound once")
    else:
        check_share(counts[queues[0]], len(KEYS), 1 / 2)


@scenario("consistent-hash.bad-weight", covers=["consistent-hash:bad-weight"], exchange_type=HASH)
def weight_that_is_no_integer_from_one_on(s: Session) -> None:
    channel = s.channel()
    exchange, other = s.exchange(channel, HASH), s.exchange(channel, "fanout")
    queue = s.queue(channel)
    for key, text in (
        ("0", "greater than 0"),
        ("-1", "greater than 0"),
        ("abc", 'an integer: <<"abc">>'),
        ("1.5", 'an integer: <<"1.5">>'),
        (" 5", 'an integer: <<" 5">>'),
        ("1_0", 'an integer: <<"1_0">>'),
        ('"', 'an integer: <<"\\"">>'),
    ):
        explanation = f"PRECONDITION_FAILED - The binding key must be {text}"
        channel.send("queue.bind", queue=queue, exchange=exchange, routing_key=key)
        channel.expect_close(406, explanation, "queue.bind")
        channel.reopen().send("exchange.bind", source=exchange, destination=other, routing_key=key)
        channel.expect_close(406, explanation, "exchange.bind")
        channel.reopen()
        channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key=key)
    channel.publish(b"x", exchange, "x", mandatory=True)
    channel.expect("basic.return", reply_code=312)


@scenario(
    "consistent-hash.bad-arguments", covers=["consistent-hash:bad-arguments"], exchange_type=HASH
)
def arguments_that_exclude_each_other_or_name_no_such_property(s: Session) -> None:
    channel = s.channel()
    both = "hash-header and hash-property are mutually exclusive"
    for arguments, text in (
        ({"hash-property": "app_id"}, "Unsupported property: app_id"),
        ({"hash-property": ""}, "Unsupported property: "),
        ({"hash-property": "x" * 300}, f"Unsupported property: {'x' * 300}"),
        ({"hash-property": "message_id", "hash-header": "h"}, both),
        ({"hash-property": "nonsense", "hash-header": "h"}, both),
    ):
        exchange = s.name("x")
        channel.send("exchange.declare", exchange=exchange, type=HASH, arguments=arguments)
        channel.expect_close(406, cut(f"PRECONDITION_FAILED - {text}"), "exchange.declare")
        channel.reopen().send("exchange.declare", exchange=exchange, passive=True)
        channel.expect_close(404, None, "exchange.declare")
        channel.reopen()


@scenario(
    "consistent-hash.bad-argument-type",
    covers=["consistent-hash:bad-argument-type"],
    deviations=[deviation("rabbitmq", "the channel's process dies: 541 without a text")],
    exchange_type=HASH,
)
def arguments_that_are_no_strings(s: Session) -> None:
    for name in ("hash-header", "hash-property"):
        for value, shown in (
            (5, "signedint (value 5)"),
            (True, "bool (value true)"),
            (["a"], 'array (value [{longstr,<<"a">>}])'),
            (fields.void(), "void (value undefined)"),
        ):
            channel = s.channel()
            arguments = {name: value}
            channel.send("exchange.declare", exchange=s.name("x"), type=HASH, arguments=arguments)
            if s.deviates:
                channel.connection.expect_close(541, "INTERNAL_ERROR")
            else:
                text = f"PRECONDITION_FAILED - Invalid {name} field type {shown}; expected longstr"
                channel.expect_close(406, text, "exchange.declare")


@scenario(
    "consistent-hash.not-compared", covers=["consistent-hash:not-compared"], exchange_type=HASH
)
def redeclare_may_have_other_arguments(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, HASH, arguments={"hash-header": "h"})
    for arguments in ({}, {"hash-header": "other"}, {"hash-property": "message_id"}):
        channel.declare_exchange(exchange, HASH, arguments=arguments)
    queues = queues_at(s, channel, exchange, "1", "1")
    publish_keys(channel, exchange, KEYS[:60], lambda key: {"headers": {"h": key}})
    check_equal(all(taken(channel, queues).values()), True, "the header still decides")


@scenario(
    "consistent-hash.sender-selected",
    covers=["consistent-hash:sender-selected"],
    exchange_type=HASH,
)
def message_with_several_keys_goes_to_one_queue(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, HASH)
    queues = queues_at(s, channel, exchange, "1", "1", "1")
    for key in KEYS[:40]:
        channel.publish(key.encode(), exchange, key)
        headers = {"CC": KEYS[40:50], "BCC": KEYS[50:60]}
        channel.publish(key.encode(), exchange, key, properties={"headers": headers})
    for bodies in taken(channel, queues).values():
        check_equal(set(Counter(bodies).values()), {2}, "messages where their routing key leads")


@scenario(
    "consistent-hash.restart",
    covers=["consistent-hash:restart"],
    deviations=[deviation("rabbitmq", "may spread the keys anew after a restart")],
    restarts=[Restart.STOP, Restart.KILL],
    exchange_type=HASH,
)
def keys_find_their_queues_again(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, HASH, durable=True)
    queues = queues_at(s, channel, exchange, "3", "3", "3", "3", durable=True)
    before = owners(channel, exchange, queues)
    s.restart_broker()
    after = owners(s.channel(), exchange, queues)
    moved = sum(before[key] != after[key] for key in KEYS)
    if not s.deviates:
        check_equal(moved, 0, "keys that have another queue")
