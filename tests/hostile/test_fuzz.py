"""The fuzzing of `conformance.fuzz` in its short form, and faults that it has to find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.core.broker import Broker
from broker.core.queue import Queue
from broker.core.vhost import VHost
from broker.protocol import batch, connection
from broker.protocol.channel import Channel
from broker.protocol.unacked import Unacked
from conformance.fuzz.campaign import BLOCK, PRESSED_EVERY, Failure, Totals, run_block
from conformance.fuzz.cases import CaseMaker

SHORT_BLOCKS = 12
FAULT_BLOCKS = 12
"""Blocks within which a planted fault must be found; most are found in the first one."""


@pytest.mark.parametrize("block", range(SHORT_BLOCKS))
def test_no_sequence_of_frames_upsets_the_broker(block: int) -> None:
    totals = Totals()
    failures = list(run_block(20260, block, totals))
    assert not failures, "\n".join(map(str, failures))
    assert totals.cases == BLOCK
    is_pressed = block % PRESSED_EVERY == PRESSED_EVERY - 1
    assert totals.compared == 0 if is_pressed else totals.compared > BLOCK * 0.7


def test_seed_and_number_name_the_same_case_for_ever() -> None:
    first, second = CaseMaker("7:3"), CaseMaker("7:3")
    assert [first.make() for _ in range(50)] == [second.make() for _ in range(50)]
    assert CaseMaker("7:4").make() != CaseMaker("7:3").make()


def without(function: Callable[..., Any], undo: Callable[..., object]) -> Callable[..., Any]:
    """The function, after which `undo` spoils what it did."""

    def spoilt(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        undo(*arguments)
        return result

    return spoilt


def forget_memory(queue: Queue, entries: list[Any]) -> None:
    queue.broker.memory_used += bool(entries)


def lose_entry(queue: Queue, entries: list[Any]) -> None:
    if len(queue.returned) > 1:
        queue.returned.pop()


FAULTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "memory is not given back": (Queue, "settle", without(Queue.settle, forget_memory)),
    "a returned message is lost": (Queue, "requeue", without(Queue.requeue, lose_entry)),
    "an exclusive queue stays": (VHost, "delete_queue", lambda *_, **__: 0),
    "something raises": (Broker, "find_reply_sink", lambda broker, name: broker.broken),
    "unsettled deliveries stay": (Unacked, "take_all", lambda _: []),
    "a consumer stays": (
        Channel,
        "release",
        lambda channel: channel.requeue(channel.unacked.take_all()),
    ),
    "pieces are cut wrong": (
        connection,
        "frame_size",
        lambda begin, frame_max: len(begin) + int.from_bytes(begin.begin(7)[3:], "big"),
    ),
    "a run loses its last message": (
        batch,
        "_read_same",
        without(batch._read_same, lambda *arguments: arguments[6] and arguments[6].pop()),
    ),
    "nothing is delivered": (Queue, "deliver", lambda _: None),
    "confirms are lost": (Channel, "flush_confirms", lambda _: None),
}


def found(blocks: int) -> Failure | None:
    for block in range(blocks):
        for failure in run_block(1, block, Totals()):
            return failure
    return None


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, function = FAULTS[fault]
    monkeypatch.setattr(target, name, function)
    try:
        failure = found(FAULT_BLOCKS)
    except AssertionError:
        # The well-behaved client noticed before the first case.
        return
    assert failure is not None
    assert f"--case {failure.block}:{failure.number}" in str(failure)
