"""What an exchange keeps against a list of the last messages, with restarts and little memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core import paging, reading
from broker.wire.properties import DELIVERY_MODE, HEADERS
from broker.wire.table import Field, encode_table
from tests.durable.site import PERSISTENT, DurableSite
from tests.protocol.client import Client, Exchange, Queue, text
from tests.wire.profiles import steps

NO_STORE = encode_table({"x-recent-history-no-store": Field("bool", value=True)})
KINDS: dict[str, dict[str, Any]] = {
    "transient": {},
    "persistent": PERSISTENT,
    "not kept": {"flags": HEADERS | DELIVERY_MODE, "properties": NO_STORE + b"\x02"},
}


class HistoryMachine(RuleBasedStateMachine):
    """One exchange of each length, with as many messages as memory has no room for."""

    def __init__(self) -> None:
        super().__init__()
        self.site = DurableSite(memory=40_000)
        self.client: Client = self.site.connect()
        # (body, whether it is persistent) of what is kept, by exchange.
        self.kept: dict[str, list[tuple[str, bool]]] = {}
        self.lengths: dict[str, int] = {}
        self.count = 0
        for length in (1, 5, 60):
            self.declare(f"x{length}", length)

    def declare(self, name: str, length: int) -> None:
        arguments = {
            "x-recent-history-length": Field("signedint", length),
            "alternate-exchange": text("amq.fanout"),
        }
        self.client.tell(
            Exchange.Declare,
            exchange=name,
            exchange_type="x-recent-history",
            durable=True,
            arguments=arguments,
        )
        self.site.settle_down()
        self.client.read()
        self.kept[name], self.lengths[name] = [], length

    @rule(
        name=st.sampled_from(["x1", "x5", "x60"]),
        kind=st.sampled_from(list(KINDS)),
        count=st.integers(1, 40),
        size=st.sampled_from([1, 300]),
    )
    def publish(self, name: str, kind: str, count: int, size: int) -> None:
        for _ in range(count):
            self.count += 1
            body = f"{self.count}".ljust(size, ".")
            self.client.publish(body.encode(), exchange=name, **KINDS[kind])
            if kind != "not kept":
                self.kept[name].append((body, kind == "persistent"))
        self.site.settle_down()
        del self.kept[name][: -self.lengths[name]]

    @rule(name=st.sampled_from(["x1", "x5", "x60"]), later=st.integers(0, 3))
    def bind(self, name: str, later: int) -> None:
        """Binds a queue, while something is published."""
        self.client.queue("q")
        other = self.site.connect()
        self.client.tell(Queue.Bind, queue="q", exchange=name)
        meanwhile = []
        for _ in range(later):
            self.count += 1
            meanwhile.append((f"{self.count}", False))
            other.publish(f"{self.count}".encode(), exchange=name)
        self.site.settle_down()
        assert [item.kind for item in self.client.read()] == [Queue.BindOk]
        other.consume("q", no_ack=True)
        self.site.settle_down()
        found = [body.decode() for body in other.bodies()]
        self.kept[name] += meanwhile
        wanted = [body for body, _ in self.kept[name]]
        del self.kept[name][: -self.lengths[name]]
        # What comes while the others are read may push the oldest ones out.
        assert found in [wanted[first:] for first in range(len(meanwhile) + 1)]
        self.client.ask(Queue.Delete, queue="q")
        self.site.settle_down()
        self.client.read()

    @rule(is_stopped=st.booleans())
    def restart(self, is_stopped: bool) -> None:
        before = self.site
        self.site = before.stop() if is_stopped else before.crash()
        self.site.broker.limits = before.broker.limits
        self.site.broker.pager = paging.Pager(self.site.broker)
        self.site.broker.pager.open_scratch = self.site._open_scratch
        self.client = self.site.connect()
        for name, kept in self.kept.items():
            self.kept[name] = [item for item in kept if item[1]]

    @precondition(lambda self: not self.site.broker.blocked)
    @invariant()
    def as_many_are_kept_as_the_list_has(self) -> None:
        for name, kept in self.kept.items():
            history = self.site.vhost.exchanges[name].history
            assert history is not None
            assert history.messages_ready == len(kept)

    def teardown(self) -> None:
        for name in self.kept:
            self.client.tell(Exchange.Delete, exchange=name)
            self.site.settle_down()
        assert self.site.broker.memory_used == 0


@pytest.fixture(autouse=True, scope="module")
def _small() -> Any:
    """Heads and pieces of a few messages, so that a short history is paged out too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "HEAD_BYTES", 1_000)
        patch.setattr(paging, "HEAD_BYTES_MIN", 100)
        patch.setattr(paging, "RECORD_BYTES", 2_000)
        patch.setattr(reading, "FETCH_BYTES", 2_000)
        yield


TestHistoryMachine = HistoryMachine.TestCase
TestHistoryMachine.settings = steps(25, 25)
