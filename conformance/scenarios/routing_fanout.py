"""Fanout exchanges."""

from conformance.registry import scenario
from conformance.routing import bound_queue, check_routes
from conformance.session import Session


@scenario("fanout.everything", covers=["routing:fanout"])
def every_bound_queue_gets_every_message(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    keys = ["", "a", "a.b", "#"]
    queues = [bound_queue(s, channel, exchange, key) for key in keys]
    unbound = s.queue(channel)
    check_routes(channel, exchange, keys, dict.fromkeys(queues, keys) | {unbound: []})


@scenario("fanout.one-copy", covers=["rule:one-copy-per-queue"])
def queue_that_is_bound_by_many_keys_gets_one_copy(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    queue = bound_queue(s, channel, exchange, "a", "b", "")
    check_routes(channel, exchange, ["a"], {queue: ["a"]})
    for key in ("a", ""):
        channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key=key)
    check_routes(channel, exchange, ["a"], {queue: ["a"]})
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="b")
    check_routes(channel, exchange, ["a"], {queue: []})
