"""Seeded runs of the machine: longer than those that can be shrunk, and busier. A seed names the
same run for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.durable.defining import EXCHANGES, PEERS, QUEUES, SOURCES
from tests.durable.machine import DurableMachine
from tests.durable.peer import CONFIRM, CONSUME, TX

Dice = random.Random
WEIGHTS: dict[Callable[[DurableMachine, Dice], None], int] = {}


def weight(
    number: int,
) -> Callable[[Callable[[DurableMachine, Dice], None]], Callable[[DurableMachine, Dice], None]]:
    def register(
        function: Callable[[DurableMachine, Dice], None],
    ) -> Callable[[DurableMachine, Dice], None]:
        WEIGHTS[function] = number
        return function

    return register


def some_queue(dice: Dice) -> str:
    return dice.choice(["q0", "q0", "q0", "q1", "q1", "t0"])


@weight(24)
def publish(machine: DurableMachine, dice: Dice) -> None:
    machine.publish_some(
        dice.randrange(PEERS),
        dice.choice([0, 0, 0, 1, 3, 4, 4, 5]),
        dice.randint(1, 6),
        dice.choice([0, 0, 90, 300]),
        persistent=dice.random() < machine.persistent_share,
        in_tx=dice.random() < 0.25,
    )


@weight(5)
def consume(machine: DurableMachine, dice: Dice) -> None:
    number, prefetch = dice.randrange(PEERS), dice.choice([0, 1, 2, 3, 8])
    machine.consume_from(number, some_queue(dice), prefetch, no_ack=dice.random() < 0.15)


@weight(24)
def settle(machine: DurableMachine, dice: Dice) -> None:
    machine.settle_some(
        dice.randrange(PEERS),
        dice.choice([CONFIRM, CONSUME, CONSUME, CONSUME, CONSUME, TX]),
        dice.choice([0, 0, dice.randrange(16)]),
        dice.choice(["ack", "ack", "ack", "reject", "requeue"]),
        multiple=dice.random() < 0.4,
    )


@weight(6)
def burst(machine: DurableMachine, dice: Dice) -> None:
    """Much happens while the disk does nothing: it comes and goes in one batch."""
    for _ in range(3):
        publish(machine, dice)
    for _ in range(5):
        settle(machine, dice)


@weight(6)
def get(machine: DurableMachine, dice: Dice) -> None:
    machine.get(number=dice.randrange(PEERS), name=some_queue(dice), in_tx=dice.random() < 0.5)


@weight(5)
def end_transaction(machine: DurableMachine, dice: Dice) -> None:
    machine.end_transaction(number=dice.randrange(PEERS), commit=dice.random() < 0.8)


@weight(5)
def declare(machine: DurableMachine, dice: Dice) -> None:
    number = dice.randrange(PEERS)
    if dice.random() < 0.5:
        machine.declare_queue(number, dice.choice(list(QUEUES)))
    else:
        machine.declare_exchange(number, dice.choice(list(EXCHANGES)))


@weight(5)
def bind(machine: DurableMachine, dice: Dice) -> None:
    number = dice.randrange(PEERS)
    if dice.random() < 0.2:
        machine.bind_exchanges(number, dice.choice(list(EXCHANGES)))
    else:
        source, queue = dice.choice(SOURCES), dice.choice(list(QUEUES))
        machine.bind(number, source, queue, unbind=dice.random() < 0.2)


@weight(2)
def delete(machine: DurableMachine, dice: Dice) -> None:
    number = dice.randrange(PEERS)
    if dice.random() < 0.6:
        machine.delete_queue(number, dice.choice(list(QUEUES)))
    else:
        machine.delete_exchange(number, dice.choice(list(EXCHANGES)))


@weight(3)
def interrupt(machine: DurableMachine, dice: Dice) -> None:
    what = dice.choice(["cancel", "cancel", "purge", "death"])
    number, share = dice.randrange(PEERS), dice.randrange(16)
    machine.interrupt(number=number, what=what, name=some_queue(dice), share=share)


@weight(14)
def disk(machine: DurableMachine, dice: Dice) -> None:
    machine.disk_works(count=dice.randint(1, 3), tell=dice.random() < 0.8)


@weight(8)
def reads(machine: DurableMachine, dice: Dice) -> None:
    machine.reads_are_answered(count=dice.randint(1, 2))


@weight(2)
def rest(machine: DurableMachine, dice: Dice) -> None:
    machine.all_is_done()


@weight(2)
def crash(machine: DurableMachine, dice: Dice) -> None:
    machine.start(stop=False, keep=dice.randint(0, 2))


@weight(2)
def crash_behind_a_commit(machine: DurableMachine, dice: Dice) -> None:
    for _ in range(3):
        publish(machine, dice)
    machine.end_transaction(number=dice.randrange(PEERS), commit=True)
    machine.disk_works(count=dice.randint(1, 2), tell=False)
    machine.start(stop=False, keep=dice.randint(0, 1))


@weight(1)
def stop(machine: DurableMachine, dice: Dice) -> None:
    machine.stop_and_start()


def play_backlog(seed: int, steps: int, machine_type: type[DurableMachine]) -> Any:
    """A run in which a backlog grows, and is then worked off."""
    dice = random.Random(seed)
    machine = machine_type()
    grow = [publish, publish, publish, disk, disk, reads, get]
    shrink = [consume, settle, settle, settle, settle, disk, reads, publish]
    rare = [crash, rest, interrupt]
    for step in range(steps):
        if not step % 100:
            for number in range(PEERS):
                machine.interrupt(number=number, what="death", name="q0", share=0)
        actions = shrink if step % 100 > 60 else grow
        dice.choice([*actions, *actions, *actions, *actions, *rare])(machine, dice)
        machine.check_if_quiet()
    machine.teardown()
    return machine


def play(seed: int, steps: int, machine_type: type[DurableMachine] = DurableMachine) -> Any:
    """One run. Raises what the machine finds."""
    dice = random.Random(seed)
    machine = machine_type()
    actions, weights = list(WEIGHTS), list(WEIGHTS.values())
    for action in dice.choices(actions, weights, k=steps):
        action(machine, dice)
        machine.check_if_quiet()
    machine.teardown()
    return machine
