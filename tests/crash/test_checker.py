"""What the checker of the crash harness must find, and what it must let pass."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest

from conformance.crash.bodies import LARGEST, SMALLEST, make_body, random_size, read_body
from conformance.crash.checker import (
    ACK_WINDOW_S,
    STALL_MOST_S,
    STALL_S,
    Look,
    Verdict,
    ack_window_s,
    judge,
    settle,
)
from conformance.crash.findings import Finding, Kind, Totals
from conformance.crash.record import Copy, Message, Record, Seen, Stage, Transaction

END = 1000.0
LONG_AGO = END - 10
JUST_BEFORE = END - ACK_WINDOW_S / 2


class Case:
    """A record of the queues "q", "r" and the prioritised "p", and what is found in them."""

    def __init__(self) -> None:
        self.record = Record({"q", "r"}, {"p"})
        self.look: dict[str, list[Seen]] = {"q": [], "r": [], "p": []}

    def message(self, *queues: str, publisher: int = 1, **fields: object) -> list[Copy]:
        """A message that was sent to these queues, confirmed unless the fields say otherwise."""
        number = self.record.next_number(publisher)
        message = Message(publisher, number, "x", "key")
        message.confirmed = True
        for name, value in fields.items():
            setattr(message, name, value)
        self.record.publishing(message, list(queues))
        return [self.record.queues[queue][message.key] for queue in queues]

    def found(self, queue: str, copy: Copy, *, redelivered: bool = False) -> None:
        self.look[queue].append(Seen(copy.message.key, redelivered, "x", "key"))

    def judge(self) -> Verdict:
        return judge(self.record, self.look, END)

    def kinds(self) -> list[Kind]:
        return [finding.kind for finding in self.judge().findings]


def filled(count: int = 5) -> Case:
    """A case with this many confirmed messages in "q", all of them found."""
    case = Case()
    for _ in range(count):
        case.found("q", *case.message("q"))
    return case


def test_everything_in_its_place_is_no_finding() -> None:
    assert filled().kinds() == []


def test_lost_confirmed_message_is_found() -> None:
    case = filled()
    del case.look["q"][2]
    assert case.kinds() == [Kind.LOST]


def test_message_lost_in_one_of_two_queues_is_found() -> None:
    case = Case()
    in_q, _ = case.message("q", "r")
    case.found("q", in_q)
    assert case.kinds() == [Kind.LOST]


def test_unconfirmed_message_may_be_lost_or_there() -> None:
    case = filled()
    case.message("q", confirmed=False)
    case.found("q", *case.message("q", confirmed=False))
    assert case.kinds() == []


def test_missing_queue_is_found_with_its_messages() -> None:
    case = filled(1)
    del case.look["q"]
    assert case.kinds() == [Kind.DEFINITION, Kind.LOST]


def test_message_that_was_never_sent_is_found() -> None:
    case = filled()
    case.look["q"].append(Seen((9, 1), redelivered=False))
    assert case.kinds() == [Kind.INVENTED]


def test_message_in_a_queue_it_was_not_sent_to_is_found() -> None:
    case = filled()
    case.look["r"].append(case.look["q"][0])
    assert case.kinds() == [Kind.INVENTED]


def test_damaged_body_is_found_beside_the_loss() -> None:
    case = filled()
    case.look["q"][1] = dataclasses.replace(case.look["q"][1], key=None)
    assert case.kinds() == [Kind.CORRUPTED, Kind.LOST]


@pytest.mark.parametrize(
    "other",
    [
        lambda seen: dataclasses.replace(seen, exchange="y"),
        lambda seen: dataclasses.replace(seen, routing_key="y"),
        lambda seen: dataclasses.replace(seen, properties_intact=False),
    ],
)
def test_changed_envelope_is_found(other: Callable[[Seen], Seen]) -> None:
    case = filled()
    case.look["q"][1] = other(case.look["q"][1])
    assert case.kinds() == [Kind.CORRUPTED]


def test_message_that_is_there_twice_is_found() -> None:
    case = filled()
    case.look["q"].insert(1, case.look["q"][1])
    assert case.kinds() == [Kind.DUPLICATED]


def test_two_messages_that_changed_places_are_found() -> None:
    case = filled()
    seen = case.look["q"]
    seen[1], seen[2] = seen[2], seen[1]
    assert case.kinds() == [Kind.DISORDERED]


def test_publishers_may_be_mixed_in_any_way() -> None:
    case = Case()
    copies = [case.message("q", publisher=p)[0] for p in (1, 1, 2, 2)]
    for place in (2, 0, 3, 1):
        case.found("q", copies[place])
    assert case.kinds() == []


def test_priorities_may_overtake_but_not_within_one() -> None:
    case = Case()
    copies = [case.message("p", priority=priority)[0] for priority in (0, 0, 3, 3)]
    for place in (2, 3, 0, 1):
        case.found("p", copies[place])
    assert case.kinds() == []
    case.look["p"].reverse()
    assert case.kinds() == [Kind.DISORDERED] * 2


def restarted(case: Case) -> Case:
    """The case after a look that was taken long before the next end."""
    settle(case.record, case.look, LONG_AGO)
    case.look["q"] = [dataclasses.replace(seen, redelivered=True) for seen in case.look["q"]]
    return case


def test_order_that_was_seen_before_must_stay() -> None:
    case = Case()
    for publisher in (1, 2, 3):
        case.found("q", *case.message("q", publisher=publisher))
    restarted(case).look["q"].reverse()
    assert case.kinds() == [Kind.DISORDERED] * 2


def test_new_message_before_an_old_one_is_found() -> None:
    case = restarted(filled(2))
    case.found("q", *case.message("q", publisher=2))
    assert case.kinds() == []
    case.look["q"].insert(0, case.look["q"].pop())
    assert case.kinds() == [Kind.DISORDERED]


def test_message_that_survived_one_crash_must_survive_the_next() -> None:
    case = Case()
    case.found("q", *case.message("q", confirmed=False))
    restarted(case).look["q"].clear()
    assert case.kinds() == [Kind.LOST]


def acked(case: Case, settled_at: float | None) -> Copy:
    """The second message was delivered and acked."""
    copy = list(case.record.queues["q"].values())[1]
    copy.delivered_at = LONG_AGO
    copy.acked = True
    copy.settled_at = settled_at
    return copy


@pytest.mark.parametrize("settled_at", [None, JUST_BEFORE])
def test_message_acked_just_before_the_end_may_come_back_marked(settled_at: float | None) -> None:
    case = filled()
    acked(case, settled_at)
    case.look["q"][1] = dataclasses.replace(case.look["q"][1], redelivered=True)
    age_s = 0.0 if settled_at is None else END - settled_at
    assert case.judge() == Verdict([], 1, 0, age_s)


def test_acked_message_that_comes_back_unmarked_is_found() -> None:
    case = filled()
    acked(case, JUST_BEFORE)
    assert case.kinds() == [Kind.UNMARKED]


def test_message_acked_long_ago_that_comes_back_is_found() -> None:
    case = filled()
    acked(case, LONG_AGO)
    case.look["q"][1] = dataclasses.replace(case.look["q"][1], redelivered=True)
    [finding] = case.judge().findings
    assert (finding.kind, finding.age_s) == (Kind.ACK_UNDONE, END - LONG_AGO)


def test_ack_window_grows_only_by_confirms_that_were_due() -> None:
    case = filled()
    [waiting] = case.message("q", confirmed=False, waits_since=END - STALL_S / 2)
    assert ack_window_s(case.record, END) == ACK_WINDOW_S
    waiting.message.waits_since = END - 0.5
    assert ack_window_s(case.record, END) == pytest.approx(ACK_WINDOW_S + 0.5)
    waiting.message.waits_since = END - 60
    assert ack_window_s(case.record, END) == ACK_WINDOW_S + STALL_MOST_S
    waiting.message.persistent = False
    assert ack_window_s(case.record, END) == ACK_WINDOW_S


def test_message_that_waited_before_a_restart_excuses_nothing_after_it() -> None:
    case = Case()
    case.found("q", *case.message("q", confirmed=False, waits_since=LONG_AGO))
    restarted(case)
    assert ack_window_s(case.record, END) == ACK_WINDOW_S


def test_acked_message_that_is_gone_is_fine_and_may_not_come_back_later() -> None:
    case = filled()
    acked(case, LONG_AGO)
    gone = case.look["q"].pop(1)
    assert case.kinds() == []
    restarted(case).look["q"].insert(1, gone)
    assert case.kinds() == [Kind.INVENTED]


def test_delivered_message_must_be_marked_if_it_was_delivered_long_ago() -> None:
    case = filled()
    first, second, *_ = case.record.queues["q"].values()
    first.delivered_at = JUST_BEFORE
    assert case.kinds() == []
    second.delivered_at = LONG_AGO
    assert case.kinds() == [Kind.UNMARKED]


def test_transient_message_that_survives_is_found() -> None:
    case = filled()
    [copy] = case.message("q", persistent=False)
    assert case.kinds() == []
    case.found("q", copy)
    assert case.kinds() == [Kind.TRANSIENT]


def transfer(stage: Stage) -> tuple[Case, Copy, Copy, Copy]:
    """A transaction that acks one message of "q" and publishes one to "q" and "r"."""
    case = filled(1)
    transaction = Transaction(stage)
    [taken] = case.record.queues["q"].values()
    taken.delivered_at = JUST_BEFORE
    taken.acked = True
    taken.transaction = transaction
    transaction.acked.append(("q", taken.message.key))
    committed = stage is Stage.COMMITTED
    in_q, in_r = case.message(
        "q", "r", publisher=2, confirmed=committed, transaction=transaction
    )  # fmt: skip
    case.record.transactions.append(transaction)
    return case, taken, in_q, in_r


def test_committed_transaction_must_be_whole() -> None:
    case, _, in_q, in_r = transfer(Stage.COMMITTED)
    case.look["q"].clear()
    case.found("q", in_q)
    case.found("r", in_r)
    assert case.kinds() == []
    del case.look["r"][0]
    assert case.kinds() == [Kind.LOST]


def test_ack_of_a_committed_transaction_is_never_undone() -> None:
    case, _, in_q, in_r = transfer(Stage.COMMITTED)
    case.found("q", in_q)
    case.found("r", in_r)
    assert case.kinds() == [Kind.COMMIT_UNDONE]


@pytest.mark.parametrize("stage", [Stage.OPEN, Stage.ROLLED_BACK])
def test_transaction_that_was_not_committed_leaves_no_trace(stage: Stage) -> None:
    case, _, _, in_r = transfer(stage)
    assert case.kinds() == []
    case.found("r", in_r)
    assert case.kinds() == [Kind.UNCOMMITTED]
    case.look["r"].clear()
    case.look["q"].clear()
    assert case.kinds() == [Kind.UNCOMMITTED]


@pytest.mark.parametrize(
    ("ack_done", "q_done", "r_done"),
    [(a, q, r) for a in (False, True) for q in (False, True) for r in (False, True)],
)
def test_commit_in_doubt_is_whole_or_nothing(ack_done: bool, q_done: bool, r_done: bool) -> None:
    case, _, in_q, in_r = transfer(Stage.COMMITTING)
    if ack_done:
        case.look["q"].clear()
    if q_done:
        case.found("q", in_q)
    if r_done:
        case.found("r", in_r)
    verdict = case.judge()
    whole = ack_done == q_done == r_done
    assert [finding.kind for finding in verdict.findings] == ([] if whole else [Kind.TORN])
    assert verdict.commits_in_doubt == 1


def test_message_of_a_commit_in_doubt_that_somebody_acked_says_nothing() -> None:
    case, _, in_q, in_r = transfer(Stage.COMMITTING)
    case.look["q"].clear()
    case.found("q", in_q)
    in_r.acked = True
    assert case.kinds() == []


def delivered(case: Case, key: tuple[int, int], *, redelivered: bool = False) -> list[Kind]:
    case.record.delivery("q", Seen(key, redelivered, "x", "key"), LONG_AGO)
    return [finding.kind for finding in case.record.findings]


def test_deliveries_are_judged_as_they_come() -> None:
    case = filled()
    assert delivered(case, (1, 1)) == []
    assert delivered(case, (1, 1)) == [Kind.DUPLICATED]
    case.record.queues["q"][1, 1].held = False
    assert delivered(case, (1, 1)) == [Kind.DUPLICATED, Kind.UNMARKED]
    acked(case, None)
    assert delivered(case, (1, 2))[2:] == [Kind.ACK_UNDONE]
    assert delivered(case, (7, 7))[3:] == [Kind.INVENTED]


def test_delivery_of_an_open_transaction_is_found() -> None:
    case, _, in_q, _ = transfer(Stage.OPEN)
    assert delivered(case, in_q.message.key) == [Kind.UNCOMMITTED]


def test_verdict_does_not_depend_on_what_was_asked_before() -> None:
    case = filled()
    del case.look["q"][0]
    look: Look = {queue: tuple(seen) for queue, seen in case.look.items()}
    first = judge(case.record, look, END)
    assert judge(case.record, look, END) == first


def test_body_tells_its_name_and_any_flipped_bit_is_noticed() -> None:
    body = make_body(3, 70_000, 40)
    assert read_body(body) == (3, 70_000)
    for bit in range(len(body) * 8):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        assert read_body(bytes(flipped)) is None
    assert [read_body(body[:size]) for size in range(len(body))] == [None] * len(body)


def test_bodies_have_the_size_asked_for() -> None:
    chance = random.Random(1)
    sizes = [SMALLEST, LARGEST, *(random_size(chance) for _ in range(50))]
    bodies = [make_body(65_535, 2**32 - 1, size) for size in sizes]
    assert [len(body) for body in bodies] == sizes
    assert {read_body(body) for body in bodies} == {(65_535, 2**32 - 1)}


def test_totals_name_every_kind_and_the_greatest_ages() -> None:
    totals = Totals(kills=2, restarts_s=[0.5, 1.5])
    case = filled()
    del case.look["q"][0]
    acked(case, LONG_AGO)
    totals.add(case.judge().findings)
    totals.add([Finding(Kind.DEFINITION, "queue q is gone", 0.25)])
    totals.add([Finding(Kind.DEFINITION, "queue q is gone", 0.125)])
    rows = dict(line.strip().split("  ", 1) for line in totals.table().splitlines())
    rows = {word: text.strip() for word, text in rows.items()}
    assert {kind.value for kind in Kind} < rows.keys()
    assert rows["ends"].startswith("2 kills (0 while starting), 0 clean stops")
    assert rows["restarts"] == "1.00 s in the middle, 1.50 s at most"
    assert rows["lost"] == "1"
    assert rows["torn"] == "0"
    assert rows["definition"] == "2, answered 0.250 s before the end at most"
