"""Cases of a disk that fails: calls that write, flush or read and say that they could not."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.crash.site import FAILED, OTHER, QUEUE, Site
from conformance.crash.steady import BODY_OCTETS, SteadyPublisher
from conformance.failure import ConformanceError, check, check_equal

_UNREADABLE = "messages there cannot be delivered"
_READABLE = "can be read again"


def _failed(site: Site, call: str, *, after: int) -> SteadyPublisher:
    """A publisher that was refused something since this call has failed, once.

    Everything that a broker owes its clients then is looked at.
    """
    site.start()
    site.declare()
    publisher = site.publisher()
    publisher.until(lambda: publisher.confirmed > after, "messages are confirmed", 60.0)
    site.faults.fail(call, times=1)
    publisher.until(lambda: publisher.refused > 0, "a message is refused", 60.0)
    confirmed, refused = publisher.confirmed, publisher.refused
    publisher.until(lambda: publisher.refused > refused + 100, "all that comes is refused")
    check_equal(publisher.confirmed, confirmed, "confirms after a failure")
    site.expect_said(FAILED)
    _expect_transient_confirms(site)
    _expect_memory_served(site)
    _expect_541(site)
    # That was for what must last alone.
    _expect_transient_confirms(site)
    _expect_durable_is_there(site)
    return publisher


def _expect_durable_is_there(site: Site) -> None:
    """What lasts already is declared as before."""
    connection = site.connect()
    channel = connection.channel()
    for queue in site.record.queues:
        channel.call("queue.declare", queue=queue, durable=True)
    connection.close()


def _expect_541(site: Site) -> None:
    """Who waits for the disk is told."""
    connection = site.connect()
    connection.channel().send("queue.declare", queue="late", durable=True)
    closed = connection.channel0.expect("connection.close", reply_code=541)
    check("storage has failed" in closed["reply_text"], f"reply text {closed['reply_text']!r}")
    connection.drop()


def _expect_transient_confirms(site: Site) -> None:
    connection = site.connect()
    channel = connection.channel()
    queue = channel.declare_queue(exclusive=True)
    channel.call("confirm.select")
    channel.publish(b"transient", routing_key=queue)
    channel.expect("basic.ack", delivery_tag=1)
    check_equal(channel.get_all(queue), [b"transient"], "transient messages")
    connection.close()


def _expect_memory_served(site: Site) -> None:
    """What is in memory is delivered; no ack of it lasts."""
    half = site.owed() // 2
    site.drain(lambda: site.owed() <= half)


def _expect_nothing_written_since(site: Site) -> None:
    """After a failure nobody knows what is on the disk: another flush would prove nothing."""
    after = site.faults.calls_after_failure()
    check(any(call.error > 0 for call in site.faults.calls()), "a call has failed")
    check(not after, f"{len(after)} calls after the failure, first: {after[:1]}")
    check(not (site.ground.data / "SEAL").exists(), "a failed log is not sealed")


def _forget_acks(site: Site) -> None:
    """After a failure no ack lasts: all that was confirmed must be there again."""
    for copies in site.record.queues.values():
        for copy in copies.values():
            if copy.acked:
                copy.acked = False
                copy.delivered_at = None


def flush_fails(site: Site) -> None:
    """fdatasync fails once; the next ones would work, and are not asked."""
    _failed(site, "fdatasync", after=400)
    site.kill()
    _expect_nothing_written_since(site)
    _forget_acks(site)
    site.faults.heal()
    site.restart_and_judge()


def flush_fails_and_the_power(site: Site) -> None:
    """The same, and what was only in the memory of the system is lost after it."""
    _failed(site, "fdatasync", after=400)
    site.kill()
    _expect_nothing_written_since(site)
    _forget_acks(site)
    site.faults.heal()
    site.ground.after_kill()
    site.restart_and_judge()


def write_fails(site: Site) -> None:
    """pwritev fails once; the broker is stopped in good order, which writes nothing either."""
    _failed(site, "write", after=400)
    site.stop()
    _expect_nothing_written_since(site)
    _forget_acks(site)
    site.faults.heal()
    site.restart_and_judge()


def segment_fails(site: Site) -> None:
    """The folder cannot be flushed when the next segment gets its name."""
    _failed(site, "fsync", after=400)
    site.stop()
    _expect_nothing_written_since(site)
    _forget_acks(site)
    site.faults.heal()
    site.restart_and_judge()


def allocation_fails(site: Site) -> None:
    """posix_fallocate fails otherwise than for want of space."""
    _failed(site, "fallocate", after=400)
    site.stop()
    _expect_nothing_written_since(site)
    _forget_acks(site)
    site.faults.heal()
    site.restart_and_judge()


def _paged(site: Site) -> int:
    """A broker with a backlog that is on the disk only but for its ends; the number of messages."""
    site.start()
    site.declare()
    publisher = site.publisher()
    publisher.until(lambda: publisher.confirmed >= 300, "messages are confirmed", 60.0)
    publisher.finish()
    site.kill()
    site.start("--disk-free-min 0 --memory 64MB")
    return site.owed()


def _take_until_silent(site: Site, channel: Channel, silent_s: float) -> int:
    """Takes what comes, unacked, until nothing came for so long."""
    taken = 0
    while True:
        try:
            site.take(channel, ack=False)
        except ConformanceError as error:
            if site.record.findings or "nothing came within" not in str(error):
                raise
            return taken
        taken += 1


def sector_cannot_be_read(site: Site) -> None:
    """A few octets in the middle of a backlog: what is before is delivered, the broker says where
    it stops, serves everybody else, and goes on when they can be read."""
    count = _paged(site)
    middle = count * BODY_OCTETS // 2
    site.faults.fail("read", low=middle, high=middle + 4096, suffix="0000000001.log")
    connection = site.connect()
    connection.timeout_s = 3.0
    channel = connection.channel()
    channel.consume(QUEUE, "consumer")
    before = _take_until_silent(site, channel, 3.0)
    check(before > count // 3, f"{before} of {count} messages were delivered")
    check(before < count, "something cannot be read")
    site.expect_said(_UNREADABLE)
    _expect_others_served(site)
    site.faults.heal()
    for _ in range(count - before):
        site.take(channel, ack=False)
    site.expect_said(_READABLE)
    site.kill()
    connection.drop()
    site.restart_and_judge()


def nothing_can_be_read(site: Site) -> None:
    """Every read fails: who asks is told, who waits is served after a restart."""
    _paged(site)
    site.faults.fail("read")
    connection = site.connect()
    channel = connection.channel()
    # What is in memory comes first.
    for _ in range(site.owed()):
        channel.send("basic.get", queue=QUEUE)
    closed = connection.channel0.expect("connection.close", reply_code=541)
    text = closed["reply_text"]
    check("0000000001.log from offset" in text, f"reply text {text!r}")
    connection.drop()
    with site.consumer():
        site.expect_said(_UNREADABLE)
        _expect_others_served(site)
    check(site.broker.running, "the broker runs")
    site.stop()
    site.faults.heal()
    site.restart_and_judge()


def _expect_others_served(site: Site) -> None:
    """Publishers are confirmed and other queues are consumed."""
    publisher = site.publisher(OTHER)
    publisher.until(lambda: publisher.confirmed > 50, "messages are confirmed")
    publisher.finish()
    with site.consumer(OTHER) as channel:
        for _ in range(20):
            site.take(channel, OTHER)


def start_cannot_read(site: Site) -> None:
    """A start that cannot read the log says where, in one line, and changes nothing."""
    _paged(site)
    site.kill()
    site.faults.fail("read", low=1 << 20, suffix="0000000001.log")
    try:
        site.start()
    except ConformanceError:
        check_equal(site.said("0000000001.log"), 1, "lines with the name of the file")
        check_equal(site.said("Traceback"), 0, "tracebacks")
    else:
        raise ConformanceError("a broker starts that cannot read its log")
    site.faults.heal()
    site.restart_and_judge()
