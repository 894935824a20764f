"""How scenarios are written down and found.

A scenario is a function of a Session under `@scenario(name, covers=[...])`, in a file of
`conformance/scenarios/`; README.md shows one.
"""

from __future__ import annotations

import enum
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


class Restart(enum.StrEnum):
    """How a broker ends before it is started again: in good order, or by SIGKILL."""

    STOP = "stop"
    KILL = "kill"


class Limit(enum.StrEnum):
    """What a broker has too little of: a small budget of memory, or a disk that counts as full."""

    MEMORY = "memory"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Deviation:
    """One broker does otherwise, for this reason; the scenario then checks what it does instead.

    `only`: after this kind of restart, not after the other.
    """

    broker: str
    reason: str
    only: Restart | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing a broker must do.

    `slow`: mostly waits, so it is started first. `alone`: no other scenario may run beside it.
    `ends_broker`: runs last, and only on a broker that this run started. `restart`: has the broker
    restarted in this way, so that it too needs one that this run started. `limit`: runs on a broker
    with this limit, which is one that this run started as well. `exchange_type`: not run on a
    broker that does not know this type.
    """

    name: str
    area: str
    covers: tuple[str, ...]
    deviations: tuple[Deviation, ...]
    body: Body
    slow: bool = False
    alone: bool = False
    ends_broker: bool = False
    restart: Restart | None = None
    limit: Limit | None = None
    exchange_type: str | None = None

    @property
    def needs_own_broker(self) -> bool:
        """Whether it cannot run on a broker that somebody else started."""
        return self.ends_broker or self.restart is not None or self.limit is not None

    def deviation_of(self, broker: str) -> Deviation | None:
        """The deviation of a broker, if it has one here."""
        return next((d for d in self.deviations if d.broker == broker), None)


_found: dict[str, Scenario] = {}


def deviation(broker: str, reason: str, *, only: Restart | None = None) -> Deviation:
    """For `scenario(deviations=[...])`: this broker does something else, and why; in a scenario
    of several kinds of restart perhaps after one of them only.

    The scenario must look at `Session.deviates` and check what the broker does instead.
    """
    if broker not in BROKERS:
        raise ValueError(f"no broker named {broker!r}")
    return Deviation(broker, reason, only)


def scenario(
    name: str,
    *,
    covers: Sequence[str],
    deviations: Sequence[Deviation] = (),
    slow: bool = False,
    alone: bool = False,
    ends_broker: bool = False,
    restarts: Sequence[Restart] = (),
    limit: Limit | None = None,
    exchange_type: str | None = None,
) -> Callable[[Body], Body]:
    """Registers a function as a scenario; `covers` names ids of the checklist.

    With `restarts` there is one for each, with the way of restarting at the end of its name.

    Raises ValueError for a name that is taken or an id that the checklist does not have.
    """
    unknown = [item for item in covers if item not in checklist.ITEMS]
    if unknown:
        raise ValueError(f"{name} covers {unknown}, which the checklist does not have")

    def register(body: Body) -> Body:
        area = body.__module__.rpartition(".")[2]
        for restart in restarts or (None,):
            known = tuple(d for d in deviations if d.only in (None, restart))
            full = f"{name}.{restart}" if restart else name
            if full in _found:
                raise ValueError(f"two scenarios are named {full}")
            _found[full] = Scenario(
                full,
                area,
                tuple(covers),
                known,
                body,
                slow,
                alone,
                ends_broker,
                restart,
                limit,
                exchange_type,
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
