"""Hundreds of clients that say anything and go: a running broker holds nothing of them."""

from __future__ import annotations

import re
import select

import httpx

from conformance.client import PROTOCOL_HEADER
from conformance.fuzz.cases import Case, CaseMaker
from conformance.fuzz.world import open_vhost, start_ok, tune_ok
from tests.conftest import BrokerProcess

from .conftest import Dial
from .running import MB, Steady, eventually, resident
from .test_sockets import Start

CLIENTS = 150
LOGIN = PROTOCOL_HEADER + start_ok() + tune_ok() + open_vhost()


def figures(broker: BrokerProcess) -> dict[str, float]:
    """What the broker's metrics say it holds now."""
    text = httpx.get(f"{broker.http_url}/metrics").raise_for_status().text
    names = "process_open_fds|connections|channels|consumers|channel_messages_unacked"
    found = re.findall(rf"^rabbitmq_({names}|queue_messages_unacked) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def say(dial: Dial, broker: BrokerProcess, case: Case, *, reads: bool) -> None:
    """Says all of a case over a socket, reads what comes at once or nothing, and goes."""
    connection = dial(broker)
    if not case.is_before_login:
        connection.send_raw(LOGIN)
    for _, octets in case.steps:
        connection.send_raw(octets)
        if reads and select.select([connection.socket], [], [], 0.005)[0]:
            try:
                connection.socket.recv(1 << 16)
            except ConnectionError:
                break
    connection.drop()


def test_clients_that_say_anything_leave_nothing_behind(start_broker: Start, dial: Dial) -> None:
    broker = start_broker("--memory", "50MB")
    maker = CaseMaker("churn")
    with Steady(dial(broker)) as steady:
        for number in range(20):
            say(dial, broker, maker.make(), reads=number % 2 == 0)
        eventually(lambda: figures(broker)["connections"] == 1, "connections stay")
        before, memory = figures(broker), resident(broker)
        for number in range(CLIENTS):
            say(dial, broker, maker.make(), reads=number % 2 == 0)
        eventually(lambda: figures(broker)["connections"] == 1, "connections stay")
        steady.goes_on()
    after = figures(broker)
    assert len(after) >= 4
    assert after["process_open_fds"] <= before["process_open_fds"]
    assert after["consumers"] == 0
    assert resident(broker) - memory < 20 * MB
