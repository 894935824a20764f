"""Planted bugs where features meet, each with the invariant that is about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.core import dead_letters, delay, graves, limits, retries
from broker.core.dead_letters import Letters
from broker.core.deaths import history
from broker.core.expiry import Expiry
from broker.core.foreseen import Foreseen
from broker.core.journal import Journal
from broker.core.message import Entry, Message, counted
from broker.core.queue import Queue
from broker.core.retries import Retries
from broker.core.rules import QueueRules
from broker.core.timers import Timers
from broker.protocol import channel
from broker.wire.table import Field
from tests.durable.faults import Fault, requeue_behind

KIND = "features"
WAITING = "waiting"
delay_ms = retries.delay_ms
has_room = limits.has_room
send = Letters.send
take_back = Queue.take_back
delay_of = delay.delay_of


def lose_the_last(letters: Letters, messages: Sequence[Message]) -> int:
    send(letters, messages[:-1])
    return len(messages)


def die_once(*arguments: Any) -> Any:
    return [{**event, "count": Field("long", 1)} for event in history(*arguments)]


def has_room_for_more(queue: Queue, messages: Sequence[Message]) -> bool:
    return has_room(queue, [*messages, messages[-1]])


def wait_longer(rules: QueueRules, times: int) -> int:
    return 2 * delay_ms(rules, times)


def delay_longer(header: bytes, now: int) -> int:
    milliseconds = delay_of(header, now)
    return milliseconds and milliseconds + 7


def keep_what_expired(expiry: Expiry, entries: list[Entry]) -> list[Entry]:
    return entries


def return_behind(queue: Queue, entries: list[Entry], *, failed: bool) -> None:
    take_back(queue, entries, failed=failed)
    requeue_behind(queue, entries)


def forget_nothing(retries: Retries, entries: list[Entry]) -> None:
    """What waited counts as memory for ever."""


def take_another(foreseen: Foreseen, number: int) -> Message | None:
    message = take_read(foreseen, number)
    others = [other for other in foreseen._contents.values() if other is not None]
    return others[0] if message is not None and others else message


def keep_for_ever(foreseen: Foreseen, number: int) -> Message | None:
    return foreseen._contents.get(number)


def fire_late(timers: Timers, timed: Any, due: int | None) -> None:
    set_timer(timers, timed, None if due is None else due + 20)


set_timer = Timers.set
take_read = Foreseen.pop

COMBINED_FAULTS: dict[str, Fault] = {
    "a dead letter is lost": Fault("conservation", Letters, "send", lose_the_last, KIND),
    "what died stays in the log": Fault("conservation", graves, "let_go", lambda *_: None, KIND),
    "deaths are not counted": Fault("deaths", dead_letters, "history", die_once, KIND),
    "a queue is full too early": Fault("limits", limits, "has_room", has_room_for_more, KIND),
    "a queue is never too long": Fault("limits", limits, "is_over", lambda _: False, KIND),
    "a retry waits too long": Fault("retries", retries, "delay_ms", wait_longer, KIND),
    "how long a retry waits is not written": Fault(
        "retries", Journal, "note_held", lambda *_: None, KIND
    ),
    "it came back once more than it did": Fault(
        "returns", channel, "counted", lambda message, times: counted(message, times + 1), KIND
    ),
    "a message is delayed too long": Fault("time", delay, "delay_of", delay_longer, KIND),
    "what comes back has time for ever": Fault(
        "time", Expiry, "bury_expired", keep_what_expired, KIND
    ),
    "everything is late": Fault("time", Timers, "set", fire_late, KIND),
    "what comes back goes to the end": Fault("order", Queue, "take_back", return_behind, KIND),
    "what is read before it is due is given to others": Fault(
        "conservation", Foreseen, "pop", take_another, WAITING
    ),
    "what is read before it is due stays for ever": Fault(
        "memory", Foreseen, "pop", keep_for_ever, WAITING
    ),
    "what waited counts for ever": Fault("memory", Retries, "_let_go", forget_nothing, KIND),
}
COMBINED_SURVIVORS = (
    "deaths are not counted",
    "a queue is full too early",
    "a retry waits too long",
    "it came back once more than it did",
    "a message is delayed too long",
)
"""One for each invariant that is only about this, which nothing else finds."""
