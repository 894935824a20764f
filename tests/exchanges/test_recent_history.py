"""The recent history exchange: a fanout that says how much is to be kept."""

import pytest

from exchanges import EXCHANGE_TYPES, ExchangeArgumentError, RecentHistoryExchange
from exchanges.recent_history import DEFAULT_LENGTH, HISTORY_LENGTH


def declared(value: object) -> RecentHistoryExchange[str]:
    return RecentHistoryExchange.from_arguments({HISTORY_LENGTH: value}, str)


def test_argument_says_how_many_messages_are_kept() -> None:
    assert RecentHistoryExchange.from_arguments({}, str).history_length == DEFAULT_LENGTH == 20
    for kind in ("byte", "short", "signedint", "long"):
        assert declared((kind, 7)).history_length == 7
    assert declared(2**40).history_length == 2**40


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-1, "-1"),
        (True, "true"),
        ("20", '<<"20">>'),
        (1.5, "1.5"),
        (None, "undefined"),
        (("unsignedint", 5), "5"),
        (("timestamp", 5), "5"),
    ],
)
def test_other_lengths_are_refused(value: object, shown: str) -> None:
    with pytest.raises(ExchangeArgumentError) as refused:
        declared(value)
    wanted = f"Invalid argument {shown}, 'x-recent-history-length' must be a positive integer"
    assert str(refused.value) == wanted


def test_no_other_type_keeps_anything_and_no_way_through_this_one_is_fixed() -> None:
    keeping = {name for name, kind in EXCHANGE_TYPES.items() if kind().history_length}
    assert keeping == {"x-recent-history"}
    assert not RecentHistoryExchange().is_fixed
