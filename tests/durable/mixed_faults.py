"""Planted bugs of all features, and where they meet, each with the invariant that is about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broker.core import dispatch
from broker.core import queue as queue_module
from broker.core.consumer import Consumer, ConsumerLine
from broker.core.deduplication.duplicates import Duplicates
from broker.core.deduplication.present import Present
from broker.core.deduplication.remembered import Remembered
from broker.core.expiry import Lease
from broker.core.keyed import dispatch as keyed_dispatch
from broker.core.keyed.groups import Groups
from broker.core.keyed.queue import KeyedQueue
from broker.core.keyed.turns import Turns
from broker.core.message import MESSAGE, ORIGIN, TTL, Entry
from broker.core.queue import Queue
from broker.protocol.consumer_timeout import DeliveryTimeouts, Watch
from broker.protocol.late import LateTags
from broker.wire import properties
from broker.wire.table import Table
from tests.durable.faults import Fault, after

KIND = "mixed"

hold = Groups.hold
wake_line = ConsumerLine.wake
take_late = LateTags.take
is_late = keyed_dispatch._is_late


def hold_nothing(groups: Groups, *, keeps: bool) -> None:
    del keeps
    hold(groups, keeps=False)


def let_others_pass(groups: Groups, numbers: Iterable[int]) -> None:
    groups._busy.difference_update(groups._held[each] for each in numbers if each in groups._held)


def enter_behind(turns: Turns, value: Any) -> None:
    turns._turn += 1
    turns._put((0, turns._turn, value))


def hurry(watch: Watch, *_: Any) -> None:
    watch.timeout //= 2


def wake_anybody(line: ConsumerLine, consumer: Consumer) -> None:
    line.single_active, was = False, line.single_active
    wake_line(line, consumer)
    line.single_active = was


def turn_round(consumer: Consumer, *_: Any, **__: Any) -> None:
    consumer.priority = -consumer.priority


def in_turns(arguments: Table) -> ConsumerLine:
    single_active = arguments.get("x-single-active-consumer")
    return ConsumerLine(single_active=single_active is not None)


def count_no_late(late: LateTags, tag: int, *, multiple: bool) -> tuple[int, Any]:
    return 0, take_late(late, tag, multiple=multiple)[1]


def is_late_at_all(queue: KeyedQueue, entry: Entry) -> bool:
    own = entry[MESSAGE][ORIGIN][TTL]
    return own == 0 or is_late(queue, entry)


MIXED_FAULTS: dict[str, Fault] = {
    "messages of a key go side by side": Fault("groups", Groups, "hold", hold_nothing, KIND),
    "a retry does not hold back its key": Fault("groups", Groups, "pause", let_others_pass, KIND),
    "what a value holds does not count": Fault("shares", Turns, "_enter", enter_behind, KIND),
    "ids are not written": Fault("duplicates", Remembered, "write", lambda *_: None, KIND),
    "an id stays when its message has gone": Fault(
        "conservation", Present, "gone", lambda *_: None, KIND
    ),
    "a duplicate is taken": Fault("duplicates", Duplicates, "find", lambda *_: None, KIND),
    "who uses a queue does not keep it": Fault("leases", Queue, "use", lambda _: None, KIND),
    "an unused queue stays": Fault("leases", Lease, "on_time", lambda *_: None, KIND),
    "a delivery is late too early": Fault(
        "timeouts", Watch, "__init__", after(Watch.__init__, hurry), KIND
    ),
    "a delivery is never late": Fault(
        "timeouts", DeliveryTimeouts, "time_out", lambda *_: None, KIND
    ),
    "what is settled late is not counted": Fault("counters", LateTags, "take", count_no_late, KIND),
    "two consumers are active": Fault("single active", ConsumerLine, "wake", wake_anybody, KIND),
    "the last come first": Fault(
        "consumer priority", Consumer, "__init__", after(Consumer.__init__, turn_round), KIND
    ),
    "loads do not count": Fault("least loaded", queue_module, "make_line", in_turns, KIND),
    "what a start brings back is not counted": Fault(
        "counters", dispatch, "count_again", lambda *_: None, KIND
    ),
    "letters of a queue that does not last are lost": Fault(
        "conservation", properties, "says_persistent", lambda _: False, KIND
    ),
    "what lives no time at all stops the others": Fault(
        "delivery", keyed_dispatch, "_is_late", is_late_at_all, KIND
    ),
}
