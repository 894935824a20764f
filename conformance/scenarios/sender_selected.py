"""Sender-selected distribution: the CC and BCC headers."""

from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.methods import Method
from conformance.registry import scenario
from conformance.routing import bound_queue
from conformance.session import Session


def send(channel: Channel, exchange: str, key: str, headers: dict[str, Any]) -> None:
    """Publishes one message with these headers."""
    channel.publish(b"message", exchange, key, properties={"headers": headers})


def only_message(channel: Channel, queue: str) -> Method:
    """The one message of the queue."""
    channel.settle(queue)
    found = channel.get(queue)
    if found is None or found["message_count"] != 0:
        check_equal(found and found["message_count"] + 1, 1, f"messages of {queue}")
    assert found is not None
    return found


@scenario("sender-selected.default-exchange", covers=["rule:sender-selected"])
def cc_and_bcc_name_further_queues(s: Session) -> None:
    channel = s.channel()
    key, cc, bcc, other = (s.queue(channel) for _ in range(4))
    send(channel, "", key, {"CC": [cc], "BCC": [bcc], "n": 1})
    for queue in (key, cc, bcc):
        found = only_message(channel, queue)
        check_equal(found.message.headers, {"CC": [cc], "n": 1}, "headers")
        check_equal(found["routing_key"], key, "routing key")
    check_equal(channel.get_all(other), [], "messages of another queue")


@scenario("sender-selected.bcc-only", covers=["rule:sender-selected"])
def bcc_is_removed_and_the_rest_of_the_headers_stays(s: Session) -> None:
    channel = s.channel()
    key, bcc = s.queue(channel), s.queue(channel)
    headers = {
        "a": fields.short(-3),
        "BCC": [bcc],
        "b": fields.timestamp(7),
        "c": {"BCC": [1]},
        "bcc": "small",
    }
    send(channel, "", key, headers)
    del headers["BCC"]
    for queue in (key, bcc):
        found = only_message(channel, queue)
        check_equal(found.message.headers, fields.plain(headers), "headers")
        check_equal(found.message.typed_headers["a"], fields.short(-3), "wire type of a header")
    send(channel, "", key, {"BCC": [bcc]})
    properties = only_message(channel, bcc).message.properties
    check_equal(properties, {"headers": {}}, "properties")


@scenario("sender-selected.exchanges", covers=["rule:sender-selected", "routing:direct"])
def further_keys_go_through_the_same_exchange(s: Session) -> None:
    channel = s.channel()
    for kind, patterns in (("direct", ("a", "b", "c")), ("topic", ("a.#", "b.*", "*.c"))):
        exchange = s.exchange(channel, kind)
        queues = [bound_queue(s, channel, exchange, pattern) for pattern in patterns]
        keys = patterns if kind == "direct" else ("a", "b.x", "y.c")
        send(channel, exchange, keys[0], {"CC": [keys[1]], "BCC": [keys[2]]})
        for queue in queues:
            found = only_message(channel, queue)
            check_equal(found["exchange"], exchange, "exchange")
            check_equal(found["routing_key"], keys[0], "routing key")
        send(channel, exchange, "nowhere", {"CC": [keys[1]]})
        only_message(channel, queues[1])
        check_equal(channel.get_all(queues[0]), [], "messages of the first queue")


@scenario("sender-selected.one-copy", covers=["rule:sender-selected", "rule:one-copy-per-queue"])
def queue_that_is_named_often_gets_one_copy(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    send(channel, "", queue, {"CC": [queue, queue], "BCC": [queue]})
    only_message(channel, queue)
    fanout = s.exchange(channel, "fanout")
    channel.bind(queue, fanout)
    send(channel, fanout, "", {"CC": ["a", "b"], "BCC": [queue]})
    only_message(channel, queue)


@scenario("sender-selected.alternate", covers=["rule:sender-selected", "routing:alternate"])
def alternate_exchange_is_asked_only_if_no_key_was_routed(s: Session) -> None:
    channel = s.channel()
    fallback = s.exchange(channel, "direct")
    exchange = s.exchange(channel, arguments={"alternate-exchange": fallback})
    first = bound_queue(s, channel, exchange, "a")
    rest = bound_queue(s, channel, fallback, "b")
    send(channel, exchange, "b", {"CC": ["a"]})
    only_message(channel, first)
    check_equal(channel.get_all(rest), [], "messages of the alternate exchange's queue")
    send(channel, exchange, "x", {"BCC": ["b"]})
    only_message(channel, rest)


@scenario("sender-selected.mandatory", covers=["rule:sender-selected", "rule:return-content"])
def message_is_returned_only_if_no_key_was_routed(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    missing = s.name("missing")
    properties = {"headers": {"CC": [queue]}}
    channel.publish(b"x", "", missing, mandatory=True, properties=properties)
    only_message(channel, queue)
    properties = {"headers": {"CC": [missing], "BCC": [missing]}}
    channel.publish(b"x", "", missing, mandatory=True, properties=properties)
    returned = channel.expect("basic.return", routing_key=missing)
    check_equal(returned.message.headers.get("CC"), [missing], "CC of the returned message")


@scenario("sender-selected.elements", covers=["rule:sender-selected"])
def elements_that_are_no_strings_are_passed_over(s: Session) -> None:
    channel = s.channel()
    key, cc = s.queue(channel), s.queue(channel)
    array = [5, None, s.name("missing"), cc, {"a": 1}, True]
    send(channel, "", key, {"CC": array})
    check_equal(only_message(channel, cc).message.headers["CC"], array, "CC as it was sent")
    send(channel, "", cc, {"CC": [], "BCC": []})
    check_equal(only_message(channel, cc).message.headers, {"CC": []}, "headers")


@scenario("sender-selected.names", covers=["rule:sender-selected"])
def names_of_the_headers_are_in_capitals(s: Session) -> None:
    channel = s.channel()
    key, other = s.queue(channel), s.queue(channel)
    headers = {"cc": [other], "Bcc": [other], "bcc": other}
    send(channel, "", key, headers)
    check_equal(only_message(channel, key).message.headers, headers, "headers")
    check_equal(channel.get_all(other), [], "messages of the other queue")


@scenario("sender-selected.not-array", covers=["error:cc-not-array", "error:bcc-not-array"])
def cc_that_is_no_array_closes_the_channel(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for header in ("CC", "BCC"):
        for value, kind in (
            (queue, "longstr"),
            (5, "signedint"),
            ({"a": 1}, "table"),
            (None, "void"),
            (fields.byte_array(b"a"), "binary"),
        ):
            send(channel, "", queue, {header: value})
            text = f'invalid message: {{unacceptable_type_in_header,"{header}",{kind}}}'
            channel.expect_close(406, f"PRECONDITION_FAILED - {text}", "basic.publish")
            channel.reopen()
    send(channel, "", queue, {"BCC": 1, "CC": 1})
    text = 'invalid message: {unacceptable_type_in_header,"CC",signedint}'
    channel.expect_close(406, f"PRECONDITION_FAILED - {text}", "basic.publish")
    check_equal(channel.reopen().get_all(queue), [], "messages")
