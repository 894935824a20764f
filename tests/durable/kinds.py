"""The kinds of seeded runs, and the small limits that all of them are played with: what happens
every few megabytes, happens every few messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from broker.core import cleaner, consumer, deadlines, foreseen, lasting, paging, reading
from broker.protocol import channel
from tests.durable.combined_machine import CombinedMachine
from tests.durable.combined_play import play_combined
from tests.durable.disk import DiskMachine
from tests.durable.machine import DurableMachine
from tests.durable.mixed_judge import MixedMachine
from tests.durable.mixed_play import play_mixed
from tests.durable.simulation import play, play_backlog, play_disk

Assign = Callable[[object, str, object], None]
"""As setattr."""


@dataclass(frozen=True)
class Kind:
    """How runs are played, and with what. `memory` is the limit where nothing else is said, 0 for
    none; `head_bytes` is what each queue keeps in memory."""

    play: Callable[..., Any]
    machine: type[DurableMachine | CombinedMachine | MixedMachine]
    memory: int
    head_bytes: int
    persistent_share: float


KINDS = {
    "play": Kind(play, DurableMachine, 0, 700, 0.85),
    "backlog": Kind(play_backlog, DurableMachine, 30_000, 300, 0.4),
    "disk": Kind(play_disk, DiskMachine, 30_000, 300, 0.5),
    "features": Kind(play_combined, CombinedMachine, 0, 300, 0.85),
    # Most of what waits is in a log alone, and read before it is due.
    "waiting": Kind(play_combined, CombinedMachine, 25_000, 300, 0.85),
    # All features, judged by invariants.
    "mixed": Kind(play_mixed, MixedMachine, 0, 300, 0.85),
}


def make_small(assign: Assign, kind: str = "play") -> None:
    """Sets the limits of the broker that runs of this kind are played with."""
    assign(cleaner, "SLACK", 400)
    assign(cleaner, "STEP", 300)
    assign(paging, "MARK_SHARE", 0.05)
    assign(paging, "MARK_SHARE_MIN", 0.01)
    assign(paging, "HEAD_BYTES", KINDS[kind].head_bytes)
    assign(reading, "FETCH_BYTES", 300)
    assign(lasting, "AHEAD", 8)
    assign(deadlines, "SPAN", 4)
    assign(deadlines, "NEAR_MS", 4 * deadlines.WIDTH_MS)
    assign(foreseen, "READ_AT_ONCE", 3)
    assign(foreseen, "LOOKED_AT", 6)
    assign(foreseen, "SORTED_AT_ONCE", 6)
    assign(foreseen, "READ_BYTES", 600)
    assign(foreseen, "ROOM_SHARE", 1)
    for module in (consumer, channel):
        assign(module, "BATCH_MAX", 4)


def run(
    kind: str,
    seed: int,
    steps: int,
    *,
    memory: int | None = None,
    off: frozenset[str] = frozenset(),
) -> None:
    """One run, without the checks that are `off`. Raises what the machine finds."""
    chosen = KINDS[kind]
    memory = chosen.memory if memory is None else memory
    attributes = {
        "limits": {"memory": memory} if memory else {},
        "persistent_share": chosen.persistent_share,
        "off": off,
    }
    chosen.play(seed, steps, type(chosen.machine.__name__, (chosen.machine,), attributes))
