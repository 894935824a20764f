"""The suite's own bookkeeping: nothing here needs a broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp import commands

from conformance import checklist, coverage, methods, not_yet, report
from conformance.client import Address
from conformance.failure import check
from conformance.fields import Reader, byte, decimal, encode_table, long, plain, short, void
from conformance.registry import Scenario, all_scenarios
from conformance.runner import AWAITED, FAILED, PASSED, Broker, run_one
from conformance.session import Session


def test_readme_lists_exactly_the_deviations_of_the_code() -> None:
    assert report.listed_deviations() == report.deviation_list(all_scenarios())


def test_checklist_ids_are_either_asked_or_left_out() -> None:
    assert not set(checklist.ITEMS) & set(checklist.LEFT_OUT)


def test_every_item_of_the_checklist_has_a_scenario() -> None:
    assert coverage.uncovered(all_scenarios()) == []


def test_every_scenario_covers_something() -> None:
    assert [s.name for s in all_scenarios() if not s.covers] == []


def test_scenarios_that_do_not_pass_yet_exist() -> None:
    assert not_yet.NOT_YET - {s.name for s in all_scenarios()} == set()


def test_scenario_that_does_not_pass_yet_fails_the_run_when_it_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("conformance.runner.NOT_YET", frozenset({"area.good", "area.bad"}))
    address = Address("127.0.0.1", 1)

    def passes(s: Session) -> None: ...

    def fails(s: Session) -> None:
        check(False, "not built")

    def outcome(name: str, body: Callable[[Session], None], broker: str) -> str:
        found = Scenario(name, "area", (), (), body)
        return run_one(found, address, Broker(broker, "")).outcome

    assert outcome("area.bad", fails, "leveret") == AWAITED
    assert outcome("area.good", passes, "leveret") == FAILED
    assert outcome("area.other", passes, "leveret") == PASSED
    assert outcome("area.other", fails, "leveret") == FAILED
    assert outcome("area.bad", fails, "rabbitmq") == FAILED
    assert outcome("area.good", passes, "rabbitmq") == PASSED


def test_scenario_with_unknown_fields_is_refused() -> None:
    with pytest.raises(TypeError, match="no field"):
        methods.encode_method("queue.declare", quue="q")


def test_methods_encode_as_pamqp_does() -> None:
    declare = commands.Queue.Declare(queue="q", durable=True, nowait=True, arguments={"x": "y"})
    ours = methods.encode_method(
        "queue.declare", queue="q", durable=True, nowait=True, arguments={"x": "y"}
    )
    assert ours == b"\x00\x32\x00\x0a" + declare.marshal()
    deliver = commands.Basic.Deliver("tag", 7, True, "x", "key")
    decoded = methods.decode_method(b"\x00\x3c\x00\x3c" + deliver.marshal())
    assert (decoded.name, decoded["delivery_tag"], decoded["redelivered"], decoded["exchange"]) == (
        "basic.deliver",
        7,
        True,
        "x",
    )


def test_properties_come_back_as_they_were_sent() -> None:
    sent = {
        "content_type": "text/plain",
        "headers": {"a": short(3), "b": [1, "two", {"c": 1.5}], "d": decimal(2, 314)},
        "delivery_mode": 2,
        "timestamp": 2**63,
        "cluster_id": "c",
    }
    content = methods.Content(methods.encode_header(5, sent), b"hello")
    assert content.properties == sent | {
        "headers": {"a": 3, "b": [1, "two", {"c": 1.5}], "d": (2, 314)}
    }
    assert content.typed_headers["a"] == short(3)


def test_tables_keep_their_wire_types() -> None:
    table = {"a": byte(-1), "b": long(5), "c": void()}
    assert Reader(encode_table(table)).table() == table
    assert plain(Reader(encode_table({"x": None, "y": {"z": [True]}})).table()) == {
        "x": None,
        "y": {"z": [True]},
    }
