"""What hostile names and passwords leave in the log of a running broker."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from conformance.client import Connection
from conformance.failure import ConformanceError
from conformance.methods import encode_method
from tests.conftest import BrokerProcess

from .conftest import Dial

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) +leveret\.\w+: .+"
)
CONNECTION_CLOSE = b"\x00\x0a\x00\x32"
FORGED = "2026-01-01T00:00:00.000Z info    leveret.server: forged"
NAMES = [
    f"a\n{FORGED}",
    f"a\r\n{FORGED}",
    f"a\x85{FORGED}",
    f"a\u2028{FORGED}",
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x9b31mred",
    "\u202egnp.exe\u2066",
    "\x00\x07\x08\x7f",
    '"><svg onload=alert(1)>',
    "{{7*7}} %s %d ${PATH} \\n \\",
    "\udcff\udcfe",
]
PASSWORD = "hunter2-Zürich"
Start = Callable[..., BrokerProcess]


def login(connection: Connection, **properties: Any) -> Connection:
    connection.start()
    connection.start_ok(client_properties=properties)
    connection.tune_ok()
    connection.channel0.send("connection.open", virtual_host="/")
    connection.channel0.expect("connection.open-ok")
    return connection


def started(connection: Connection) -> Connection:
    connection.start()
    return connection


def until_closed(connection: Connection) -> None:
    """Waits until the broker has noticed and noted what was wrong."""
    try:
        while not connection.receive_frame().payload.startswith(CONNECTION_CLOSE):
            pass
    except ConformanceError:
        pass
    connection.drop()


def say(dial: Dial, broker: BrokerProcess, name: str) -> None:
    """Makes the broker write lines with this name in every place that takes one."""
    raw = name.encode("utf-8", "surrogateescape")
    text = name if "\udcff" not in name else "x"
    client = login(dial(broker), connection_name=name, product=name)
    channel = client.channel()
    channel.send("queue.declare", queue=text[:20] + "!", arguments={"x-message-ttl": 1})
    channel.expect("queue.declare-ok")
    for method in ("basic.get", "queue.purge"):
        channel.send(method, queue=text)
        channel.expect("channel.close")
        channel.send("channel.close-ok")
        channel.reopen()
    channel.publish(b"", exchange=raw, routing_key=raw)
    channel.expect("channel.close")
    channel.send("channel.close-ok")
    channel.reopen()
    channel.send("exchange.declare", exchange="x", type=text)
    until_closed(client)
    for response in (b"\0" + raw + b"\0x", raw):
        refused = started(dial(broker))
        refused.start_ok(response=response)
        until_closed(refused)
    wrong = started(dial(broker))
    wrong.start_ok(mechanism=text, response=b"")
    until_closed(wrong)
    nowhere = started(dial(broker))
    nowhere.start_ok()
    nowhere.tune_ok()
    nowhere.channel0.send("connection.open", virtual_host=text + "?")
    until_closed(nowhere)
    hello = dial(broker)
    hello.send_raw(raw + b"        ")
    assert hello.receive_raw(8) == b"AMQP\x00\x00\x09\x01"


def lines_after(broker: BrokerProcess) -> list[str]:
    """The lines of its log, once the broker has ended."""
    assert broker.stop() == 0
    return broker.log.read_text(encoding="utf-8").split("\n")[:-1]


def is_harmless(text: str) -> bool:
    return all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for c in text)


def test_hostile_names_forge_no_line_and_move_no_cursor(start_broker: Start, dial: Dial) -> None:
    broker = start_broker("--login-failure-delay-s", "0")
    for name in NAMES:
        say(dial, broker, name)
    lines = lines_after(broker)
    assert len(lines) > 5 * len(NAMES)
    for line in lines:
        assert LINE.fullmatch(line)
        assert is_harmless(line)
        assert not line.startswith(FORGED)
    text = "\n".join(lines)
    # They are there, in a form that shows what they are.
    for escaped in (r"a\n2026", r"\x1b[2J", r"\u202egnp.exe", r"\x00\x07\x08\x7f", r"\x85"):
        assert escaped in text


def test_hostile_names_keep_each_json_line_one_object(start_broker: Start, dial: Dial) -> None:
    broker = start_broker("--login-failure-delay-s", "0", "--log-format", "json")
    names = NAMES[::3]
    for name in names:
        say(dial, broker, name)
    lines = lines_after(broker)
    assert len(lines) > 5 * len(names)
    for line in lines:
        assert is_harmless(line)
        found = json.loads(line)
        assert {"time", "level", "logger", "message"} <= set(found)
        assert is_harmless(found["message"])


def octets_in_words(octets: bytes) -> list[str]:
    """How octets may be hidden in a line."""
    return [
        octets.decode(),
        octets.hex(),
        base64.b64encode(octets).decode()[:-4],
        ",".join(map(str, octets)),
        repr(octets)[2:-1],
        octets.decode("latin-1"),
    ]


def test_passwords_are_in_no_line_however_the_login_goes(start_broker: Start, dial: Dial) -> None:
    broker = start_broker(
        *("--login-failure-delay-s", "0", "--log-level", "debug"),
        *("--default-user", "alice", "--default-pass", PASSWORD),
    )
    secret = PASSWORD.encode()
    start_ok = encode_method(
        "connection.start-ok", mechanism="PLAIN", response=b"\0alice\0" + secret, locale="en_US"
    )
    for response in (
        b"\0alice\0" + secret + b"x",
        b"\0nobody\0" + secret,
        b"alice\0" + secret,
        b"alice\0alice\0" + secret,
        secret,
        b"\0alice\0" + secret + b"\0",
    ):
        for mechanism in ("PLAIN", "AMQPLAIN", "EXTERNAL"):
            connection = started(dial(broker))
            connection.start_ok(mechanism, response)
            until_closed(connection)
    for payload in (start_ok + b"x", start_ok[:-1], start_ok[:4] + b"\xff" + start_ok[5:]):
        connection = started(dial(broker))
        connection.send_frame(1, 0, payload)
        until_closed(connection)
    broken_end = started(dial(broker))
    broken_end.send_frame(1, 0, start_ok, 0)
    until_closed(broken_end)
    for update in (b"", b"x", b"\xff"):
        connection = dial(broker, "alice", PASSWORD).open()
        payload = encode_method("connection.update-secret", new_secret=secret, reason="r")
        connection.send_frame(1, 0, payload + update)
        if not update:
            connection.channel0.expect("connection.update-secret-ok")
            connection.close()
        else:
            until_closed(connection)
    again = dial(broker, "alice", PASSWORD).open()
    again.send_frame(1, 0, start_ok)
    until_closed(again)
    text = "\n".join(lines_after(broker))
    assert "alice" in text
    for hidden in octets_in_words(secret):
        assert hidden not in text
        assert hidden[1:-1] not in text


def test_password_of_an_undecodable_login_is_not_sent_back(start_broker: Start, dial: Dial) -> None:
    broker = start_broker("--login-failure-delay-s", "0")
    connection = dial(broker).open()
    payload = encode_method("connection.update-secret", new_secret=PASSWORD, reason="r")
    connection.send_frame(1, 0, payload + b"x")
    closed = connection.channel0.expect("connection.close")
    assert closed["reply_code"] == 501
    for hidden in octets_in_words(PASSWORD.encode()):
        assert hidden not in closed["reply_text"]
