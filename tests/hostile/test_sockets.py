"""Clients that stall, never read, flood or take every file descriptor: the others go on."""

from __future__ import annotations

import select
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.client import PROTOCOL_HEADER, Connection
from conformance.failure import ConformanceError
from conformance.fuzz.world import method, start_ok
from conformance.methods import encode_frame
from tests.conftest import BrokerProcess

from .client import publish
from .conftest import Dial
from .running import MB, Steady, eventually, logged, push, resident

Start = Callable[..., BrokerProcess]
STALLS: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "the header": (PROTOCOL_HEADER, b""),
    "an octet now and then": (b"", PROTOCOL_HEADER + start_ok()),
    "an octet of a start-ok now and then": (PROTOCOL_HEADER, start_ok()),
    "heartbeats": (PROTOCOL_HEADER, encode_frame(8, 0, b"") * 10_000),
    "a login and no more": (PROTOCOL_HEADER + start_ok(), b""),
}
"""What is said at once, and what follows octet by octet."""


def is_ended(connection: Connection) -> bool:
    """Whether the broker has closed the socket. Takes what is there to be read."""
    while select.select([connection.socket], [], [], 0)[0]:
        try:
            if not connection.socket.recv(65536):
                return True
        except ConnectionError:
            return True
    return False


def test_clients_that_stall_in_the_handshake_end_at_its_deadline(
    start_broker: Start, dial: Dial
) -> None:
    broker = start_broker("--handshake-timeout-s", "1")
    with Steady(dial(broker)) as steady:
        stalling = {}
        for name, (first, rest) in STALLS.items():
            connection = dial(broker)
            connection.send_raw(first)
            stalling[name] = (connection, iter(rest))

        def all_ended() -> bool:
            steady.goes_on(1)
            for connection, rest in stalling.values():
                octet = next(rest, None)
                if octet is not None:
                    connection.send_raw(bytes([octet]))
            return all(is_ended(connection) for connection, _ in stalling.values())

        eventually(all_ended, "a stalling client is still there")
        # One that says nothing at all may be a probe of a load balancer.
        logged(broker, "handshake timeout in state", len(STALLS) - 1)
        steady.goes_on()


def test_clients_that_have_not_logged_in_are_limited_in_number(
    start_broker: Start, dial: Dial
) -> None:
    broker = start_broker("--max-unauthenticated-connections", "3")
    with Steady(dial(broker)) as steady:
        waiting = [dial(broker) for _ in range(3)]
        for connection in waiting[:2]:
            connection.start()
        # One that is refused counts until its socket is gone.
        waiting[2].start()
        waiting[2].start_ok("PLAIN", b"\0guest\0wrong")
        assert waiting[2].channel0.expect("connection.close")["reply_code"] == 403
        beyond = dial(broker)
        eventually(lambda: is_ended(beyond), "one client too many was taken")
        logged(broker, "too many connections that have not logged in (3)")
        steady.goes_on()
        waiting[0].start_ok()
        waiting[0].tune_ok()
        waiting[0].channel0.send("connection.open", virtual_host="/")
        waiting[0].channel0.expect("connection.open-ok")
        # The one that logged in has made room.
        again = dial(broker).open()
        assert again.channel().call("basic.qos").name == "basic.qos-ok"


def test_refused_logins_do_not_pile_up(start_broker: Start, dial: Dial) -> None:
    broker = start_broker("--max-unauthenticated-connections", "5")
    refused = []
    for _ in range(5):
        refused.append(dial(broker))
        refused[-1].start()
        refused[-1].start_ok(response=b"\0guest\0wrong", capabilities={})
    logged(broker, "login refused", 5)
    beyond = dial(broker)
    eventually(lambda: is_ended(beyond), "refused logins do not count")
    for connection in refused:
        connection.drop()
    eventually(lambda: is_taken(dial(broker)), "no room was made")


def is_taken(connection: Connection) -> bool:
    try:
        connection.start()
    except ConformanceError:
        return False
    return True


# Clients that do not read


def test_consumer_that_does_not_read_does_not_grow_the_broker(
    start_broker: Start, dial: Dial
) -> None:
    broker = start_broker()
    with Steady(dial(broker)) as steady:
        lazy = dial(broker).open().channel()
        lazy.declare_queue("lazy")
        lazy.call("basic.consume", queue="lazy", consumer_tag="t", no_ack=True)
        publisher = dial(broker).open().channel()
        for _ in range(300):
            publisher.publish(b"x" * 100_000, routing_key="lazy")
        publisher.call("basic.qos")
        steady.goes_on()
        # What the consumer does not take stays in the queue, in order.
        ready = publisher.call("queue.declare", queue="lazy", passive=True)["message_count"]
        assert ready > 100
        bodies = lazy.deliveries(300)
        assert len(bodies) == 300
        steady.goes_on()


def test_requests_of_a_client_that_reads_no_answers_are_not_taken_for_ever(
    start_broker: Start, dial: Dial
) -> None:
    broker = start_broker()
    with Steady(dial(broker)) as steady:
        greedy = dial(broker).open()
        channel = greedy.channel()
        channel.declare_queue("large")
        channel.publish(b"x" * 100_000, routing_key="large")
        channel.call("basic.qos")
        before = resident(broker)
        # Delivery tags do not matter: what is not rejected is requeued by the next recover.
        asked = push(
            greedy,
            (method(1, "basic.get", queue="large") + method(1, "basic.recover", requeue=True)) * 99,
            20 * MB,
        )
        assert asked < 20 * MB
        steady.goes_on()
        assert resident(broker) - before < 60 * MB
    small = dial(broker).open()
    name = small.channel().declare_queue("n" * 255)
    ask = method(1, "queue.declare", queue=name, passive=True)
    assert push(small, ask * 100, 50 * MB) < 50 * MB
    assert resident(broker) - before < 80 * MB


def test_replies_to_a_requester_that_does_not_read_do_not_grow_the_broker(
    start_broker: Start, dial: Dial
) -> None:
    broker = start_broker()
    with Steady(dial(broker)) as steady:
        requester = dial(broker).open().channel()
        requester.call("basic.consume", queue="amq.rabbitmq.reply-to", no_ack=True)
        server = dial(broker).open().channel()
        server.declare_queue("requests")
        requester.publish(
            b"?", routing_key="requests", properties={"reply_to": "amq.rabbitmq.reply-to"}
        )
        requester.call("basic.qos")
        server.send("basic.get", queue="requests", no_ack=True)
        request = server.expect("basic.get-ok")
        address = request.message.properties["reply_to"]
        before = resident(broker)
        for _ in range(600):
            server.publish(b"!" * 100_000, routing_key=address)
        server.call("basic.qos")
        assert resident(broker) - before < 40 * MB
        steady.goes_on()


def test_client_that_is_gone_while_it_does_not_read_is_forgotten(
    start_broker: Start, dial: Dial
) -> None:
    broker = start_broker()
    owner = dial(broker).open()
    channel = owner.channel()
    channel.declare_queue("own", exclusive=True)
    channel.call("basic.consume", queue="own", consumer_tag="t")
    other = dial(broker).open()
    publisher = other.channel()
    for _ in range(200):
        publisher.publish(b"x" * 100_000, routing_key="own")
    publisher.call("basic.qos")
    owner.drop()

    def is_gone() -> bool:
        probe = other.channel()
        probe.send("queue.declare", queue="own", passive=True)
        closed = probe.expect("channel.close")
        probe.send("channel.close-ok")
        return bool(closed["reply_code"] == 404)

    eventually(is_gone, "the exclusive queue is still there")


# Floods


def test_flood_of_one_queue_does_not_stop_others(start_broker: Start, dial: Dial) -> None:
    broker = start_broker()
    with Steady(dial(broker)) as steady:
        flooding = []
        for _ in range(3):
            connection = dial(broker).open(capabilities={})
            connection.channel().call("queue.declare", queue="flooded")
            flooding.append(connection)
        for connection in flooding:
            push(connection, publish("flooded", b"x" * 100) * 5000, 10 * MB)
            steady.goes_on()


# File descriptors


@pytest.fixture
def few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Brokers that are started may open 110 files, of which 64 are kept for other things."""
    script = tmp_path / "few"
    script.write_text(f'#!/bin/sh\nulimit -n 110\nexec {sys.executable} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))
    return 110 - 64


def test_broker_out_of_file_descriptors_says_so_and_serves_those_it_has(
    start_broker: Start, dial: Dial, few_files: int
) -> None:
    broker = start_broker()
    with Steady(dial(broker)) as steady:
        held = [dial(broker).open() for _ in range(few_files - 1)]
        for _ in range(5):
            refused = dial(broker)
            assert not is_taken(refused)
        logged(broker, f"out of file descriptors ({few_files} connections)")
        steady.goes_on()
        assert held[-1].channel().call("basic.qos").name == "basic.qos-ok"
        for connection in held[:10]:
            connection.close()
        eventually(lambda: is_taken(dial(broker)), "no room was made")
        steady.goes_on()
