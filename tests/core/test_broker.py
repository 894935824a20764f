"""What a broker holds beside its virtual hosts: connections, memory, names, reply addresses."""

import re
from typing import Any

import pytest

from broker.core.broker import MEMORY_LOW_SHARE, Broker
from broker.core.message import ORIGIN, Message
from broker.core.reply import REPLY_TO_NAME, ReplyChannel
from broker.errors import AMQPError, ReplyCode
from tests.core.fakes import Notes, make_broker, make_message


class FakeClient:
    def __init__(self, name: str) -> None:
        self.name = name

    def unblock(self, now: float) -> None:
        raise AssertionError("nobody is blocked")


class ReplyTaker:
    def __init__(self) -> None:
        self.got: list[Message] = []

    def deliver_reply(self, message: Message) -> None:
        self.got.append(message)


def test_connections_are_counted_in_and_out() -> None:
    broker = make_broker(connections=2)
    a, b, c = (FakeClient(name) for name in "abc")
    broker.add_connection(a)
    broker.add_connection(b)
    with pytest.raises(AMQPError) as caught:
        broker.add_connection(c)
    assert caught.value.code is ReplyCode.NOT_ALLOWED
    assert caught.value.explanation == ("connection refused: node connection limit (2) is reached")
    broker.remove_connection(c)
    broker.remove_connection(a)
    broker.remove_connection(a)
    broker.add_connection(c)
    assert list(broker.connections) == [b, c]
    counters = broker.counters
    assert (counters.connections_opened, counters.connections_closed) == (3, 1)


def test_no_limit_of_connections_is_no_limit() -> None:
    broker = make_broker()
    for number in range(5000):
        broker.add_connection(FakeClient(str(number)))
    assert len(broker.connections) == 5000


def test_memory_is_short_above_the_limit_until_below_the_low_mark() -> None:
    notes = Notes()
    broker = make_broker(notes=notes, memory=1000)
    seen: list[Any] = []
    for used in (0, 1000, 1001, 999, int(1000 * MEMORY_LOW_SHARE), 949, 1000, 1001):
        broker.memory_used = used
        seen.append(broker.check_memory())
    assert seen == [False, False, True, True, True, False, False, True]
    assert notes.events() == ["memory_short", "memory_free", "memory_short"]


def test_without_a_limit_memory_is_never_short() -> None:
    broker = make_broker()
    broker.memory_used = 1 << 60
    assert not broker.check_memory()


def test_made_names_are_22_safe_characters_and_all_different() -> None:
    broker = make_broker()
    names = {broker.make_name("amq.gen-") for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", name) for name in names)


def test_names_come_from_the_dice_that_were_given() -> None:
    asked: list[int] = []

    def dice(count: int) -> bytes:
        asked.append(count)
        return b"\xff" * count

    assert Broker(dice).make_name("x") == "x" + "_" * 21 + "w"
    assert asked == [16]


def test_reply_address_leads_to_its_channel_until_it_goes() -> None:
    broker = make_broker()
    taker = ReplyTaker()
    token = broker.add_reply_sink(taker)
    name = f"{REPLY_TO_NAME}.{token}"
    assert broker.find_reply_sink(name) is taker
    for other in (REPLY_TO_NAME, f"{REPLY_TO_NAME}.", f"{name}x", "q"):
        assert broker.find_reply_sink(other) is None
    message = make_message(b"reply")
    ReplyChannel(taker).publish([message, message], 0)
    assert taker.got == [message, message]
    assert message[ORIGIN][1] == "q"
    del broker.reply_sinks[token]
    assert broker.find_reply_sink(name) is None


def test_virtual_host_is_made_once() -> None:
    broker = make_broker()
    assert broker.add_vhost("/") is broker.add_vhost("/")
    assert list(broker.vhosts) == ["/"]
