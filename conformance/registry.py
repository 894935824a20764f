"""How scenarios are written down and found.

A scenario is a function of a Session under `@scenario(name, covers=[...])`, in a file of
`conformance/scenarios/`; README.md shows one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance import checklist
from conformance import scenarios as package

if TYPE_CHECKING:
    from conformance.session import Session

Body = Callable[["Session"], None]
BROKERS = ("leveret", "rabbitmq")


@dataclass(frozen=True, slots=True)
class Deviation:
    """One broker does otherwise, for this reason; the scenario then checks what it does instead."""

    broker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing a broker must do.

    `slow`: mostly waits, so it is started first. `alone`: no other scenario may run beside it.
    `ends_broker`: runs last, and only on a broker that this run started.
    """

    name: str
    area: str
    covers: tuple[str, ...]
    deviations: tuple[Deviation, ...]
    body: Body
    slow: bool = False
    alone: bool = False
    ends_broker: bool = False

    def deviation_of(self, broker: str) -> Deviation | None:
        """The deviation of a broker, if it has one here."""
        return next((d for d in self.deviations if d.broker == broker), None)


_found: dict[str, Scenario] = {}


def deviation(broker: str, reason: str) -> Deviation:
    """For `scenario(deviations=[...])`: this broker does something else, and why.

    The scenario must look at `Session.deviates` and check what the broker does instead.
    """
    if broker not in BROKERS:
        raise ValueError(f"no broker named {broker!r}")
    return Deviation(broker, reason)


def scenario(
    name: str,
    *,
    covers: Sequence[str],
    deviations: Sequence[Deviation] = (),
    slow: bool = False,
    alone: bool = False,
    ends_broker: bool = False,
) -> Callable[[Body], Body]:
    """Registers a function as a scenario; `covers` names ids of the checklist.

    Raises ValueError for a name that is taken or an id that the checklist does not have.
    """
    unknown = [item for item in covers if item not in checklist.ITEMS]
    if unknown:
        raise ValueError(f"{name} covers {unknown}, which the checklist does not have")
    if name in _found:
        raise ValueError(f"two scenarios are named {name}")

    def register(body: Body) -> Body:
        area = body.__module__.rpartition(".")[2]
        _found[name] = Scenario(
            name, area, tuple(covers), tuple(deviations), body, slow, alone, ends_broker
        )
        return body

    return register


def all_scenarios(areas: Sequence[str] = ()) -> list[Scenario]:
    """Every scenario of these areas (none: of all), by area and in order of writing.

    Raises ImportError for an area that does not exist.
    """
    for area in areas or sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{area}")
    return sorted(_found.values(), key=lambda s: s.area)
