"""Ends and starts of a broker, at rest or in the midst of things."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING

from broker.errors import ReplyCode
from tests.durable.mixed_world import QUEUES, State
from tests.durable.site import DurableSite

if TYPE_CHECKING:
    from tests.durable.mixed_judge import MixedMachine


def stop_at_rest(machine: MixedMachine, downtime: int) -> None:
    """A clean stop; what is held comes back."""
    machine.tell("stops")
    _close(machine)
    machine.check("recovery", not machine.site.log.undurable, "a stop leaves something")
    _start(machine, "stop", 0, downtime)


def _close(machine: MixedMachine) -> None:
    for client in machine.site.clients:
        client.connection.close(ReplyCode.CONNECTION_FORCED, "CONNECTION_FORCED - test")
    machine.site.collect()
    machine.settle_down()
    machine.site.broker.close_journal()


def crash_at_rest(machine: MixedMachine, downtime: int) -> None:
    """An end without a warning, when the disk has nothing to do."""
    machine.tell("is killed")
    _start(machine, "crash", 0, downtime)


def end_in_the_midst(
    machine: MixedMachine,
    dice: Random,
    actions: Iterable[Callable[[MixedMachine, Random], None]],
) -> None:
    """The broker ends while the disk is late; what was asked for may have happened."""
    machine.begin(is_open=True)
    for action in actions:
        machine.read()
        if dice.random() < 0.2:
            broker = machine.site.broker
            broker.timers.advance(broker.timers.now + dice.choice([1, 40, 200]))
            broker.run_deliveries()
            machine.site.collect()
        else:
            action(machine, dice)
        if dice.random() < 0.5:
            for log in machine.site.logs:
                count = dice.randint(1, 3)
                log.work(count)
                log.tell(count)
                log.answer(count)
                machine.site.collect()
    machine.read()
    machine.tell("is killed in the midst")
    _start(machine, "midst", dice.randint(0, 2), dice.choice([0, 0, 100]))


def _start(machine: MixedMachine, how: str, keep: int, downtime: int) -> None:
    site = machine.site
    machine.step.ended = how
    log = site.log.crashed(keep)
    machine.site = DurableSite(log, site.broker.timers.now + downtime, **machine.limits)
    machine.step.restored = frozenset(machine.site.vhost.queues)
    policies = {each.name: dict(each.definition) for each in machine.site.vhost.policies.all()}
    machine.check("definitions", policies == machine.policies, (policies, machine.policies))
    machine.world.restarted(machine.site.broker.timers.now)
    is_gone = [
        name
        for name in QUEUES
        if machine.world.queues[name].exists and name not in machine.site.vhost.queues
    ]
    for name in is_gone:
        facts = machine.world.queues[name]
        expires = facts.rules.number("expires")
        is_known = not facts.durable or (how == "midst" and expires is not None)
        machine.check("definitions", is_known, f"{name} is gone")
        if facts.durable:
            machine.step.dropped.add(name)
        facts.exists = False
    for each in machine.world.alive:
        if each.state is State.HELD:
            each.holder = None
    machine.connect()
