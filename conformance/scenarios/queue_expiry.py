"""Queues that go when nobody uses them: x-expires."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from conformance.channel import Channel
from conformance.dead_letters import dead_lettering_to, let_pass, publish_confirmed
from conformance.failure import check, check_equal, eventually
from conformance.registry import Restart, scenario
from conformance.session import Session
from conformance.texts import no_queue


def _expiring(s: Session, channel: Channel, milliseconds: int, **fields: object) -> str:
    return s.queue(channel, "expiring", arguments={"x-expires": milliseconds}, **fields)


def _is_gone(channel: Channel, queue: str) -> bool:
    """Whether a publish does not find the queue: a passive declare would be use."""
    channel.call("confirm.select")
    channel.publish(b"m", "", queue, mandatory=True)
    found = channel.expect("basic.ack", "basic.return")
    if found.name == "basic.return":
        channel.expect("basic.ack")
        return True
    time.sleep(0.01)  # the next look need not be at once
    return False


def _wait_until_gone(s: Session, *queues: str) -> None:
    probe = s.channel()
    for queue in queues:
        gone = partial(_is_gone, probe, queue)
        eventually(gone, f"{queue} is gone", 10)


@scenario("queue-expiry.unused", covers=["queue-expiry:unused", "queue-expiry:publish"])
def a_queue_that_nobody_uses_goes_whatever_is_published_to_it(s: Session) -> None:
    channel = s.channel()
    began = time.monotonic()
    queue = _expiring(s, channel, 300)
    _wait_until_gone(s, queue)
    check(time.monotonic() - began >= 0.3, "gone before its time")
    channel.send("queue.declare", queue=queue, passive=True)
    channel.expect_close(404, no_queue(queue), "queue.declare")


@scenario("queue-expiry.messages", covers=["queue-expiry:unused", "expiry:no-dead-letters"])
def it_goes_with_its_messages_which_are_not_dead_lettered(s: Session) -> None:
    channel = s.channel()
    dead = s.queue(channel, "dead")
    arguments = {"x-expires": 300, **dead_lettering_to(dead)}
    queue = s.queue(channel, arguments=arguments)
    publish_confirmed(channel, queue, b"1", b"2", b"3")
    _wait_until_gone(s, queue)
    publish_confirmed(channel, dead, b"last")
    check_equal(channel.get_all(dead), [b"last"], "dead letters")


@scenario("queue-expiry.bindings", covers=["queue-expiry:unused", "rule:exchange-auto-delete"])
def it_goes_with_its_bindings(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct", auto_delete=True)
    queue = _expiring(s, channel, 300)
    channel.bind(queue, exchange, "key")
    _wait_until_gone(s, queue)
    channel.send("exchange.declare", exchange=exchange, passive=True)
    channel.expect_close(404, None, "exchange.declare")


@scenario("queue-expiry.again", covers=["queue-expiry:again"])
def its_name_is_free_afterwards(s: Session) -> None:
    channel = s.channel()
    queue = _expiring(s, channel, 200)
    publish_confirmed(channel, queue, b"old")
    _wait_until_gone(s, queue)
    channel.declare_queue(queue, auto_delete=True, arguments={"x-max-length": 5})
    check_equal(channel.get_all(queue), [], "messages of the new queue")


@scenario("queue-expiry.consumer", covers=["queue-expiry:used"])
def a_consumer_keeps_it_and_its_time_begins_with_the_last_cancel(s: Session) -> None:
    first, second = s.channel(), s.channel()
    kept = _expiring(s, first, 1000)
    first.consume(kept, "first")
    second.consume(kept, "second")
    _wait_until_gone(s, _expiring(s, first, 1000))
    first.settle(kept)
    second.connection.close()
    cancelled = time.monotonic()
    first.call("basic.cancel", consumer_tag="first")
    _wait_until_gone(s, kept)
    check(time.monotonic() - cancelled >= 1, "gone before its time")


def _kept_by(s: Session, use: Callable[[Channel, str], object]) -> None:
    """A queue that is used late in its time goes no earlier than its time after the use."""
    channel = s.channel()
    queue = _expiring(s, channel, 1500)
    let_pass(s, 500)
    used = time.monotonic()
    use(channel, queue)
    _wait_until_gone(s, queue)
    check(time.monotonic() - used >= 1.5, "gone before its time")


@scenario("queue-expiry.get", covers=["queue-expiry:used"], slow=True)
def a_get_starts_its_time_anew(s: Session) -> None:
    _kept_by(s, lambda channel, queue: channel.get(queue))


@scenario("queue-expiry.declare", covers=["queue-expiry:used"], slow=True)
def a_declare_starts_its_time_anew(s: Session) -> None:
    arguments = {"x-expires": 1500}
    _kept_by(s, lambda channel, queue: channel.declare_queue(queue, arguments=arguments))


@scenario("queue-expiry.passive", covers=["queue-expiry:used"], slow=True)
def a_passive_declare_starts_its_time_anew(s: Session) -> None:
    _kept_by(s, lambda channel, queue: channel.message_count(queue))


@scenario("queue-expiry.unacked", covers=["queue-expiry:unused"])
def unacked_messages_do_not_keep_it(s: Session) -> None:
    channel = s.channel()
    queue = _expiring(s, channel, 500)
    publish_confirmed(channel, queue, b"1", b"2")
    for _ in range(2):
        channel.get(queue, no_ack=False)
    _wait_until_gone(s, queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.send("basic.nack", delivery_tag=2, requeue=True)
    channel.expect_silence()


@scenario("queue-expiry.exclusive", covers=["queue-expiry:unused"])
def exclusive_queues_go_as_well(s: Session) -> None:
    channel = s.channel()
    queue = _expiring(s, channel, 300, exclusive=True)
    _wait_until_gone(s, queue)
    channel.send("queue.declare", queue=queue, passive=True)
    channel.expect_close(404, no_queue(queue), "queue.declare")


@scenario(
    "queue-expiry.restart",
    covers=["queue-expiry:restart", "durability:queue"],
    restarts=[Restart.STOP, Restart.KILL],
)
def its_time_begins_anew_with_a_restart(s: Session) -> None:
    channel = s.channel()
    queue = _expiring(s, channel, 2000, durable=True)
    channel.consume(queue)
    ended = time.monotonic()
    s.restart_broker()
    _wait_until_gone(s, queue)
    check(time.monotonic() - ended >= 2, "gone before its time")
