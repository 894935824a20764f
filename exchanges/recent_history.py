"""The recent history exchange: a fanout whose last messages are kept for who is bound later.

Keeping them is the caller's matter: `history_length` says how many.
"""

from typing import Self

from exchanges.base import D, ExchangeArgumentError, Headers, Label
from exchanges.erlang import erlang_term, typed
from exchanges.fanout import FanoutExchange

HISTORY_LENGTH = "x-recent-history-length"
DEFAULT_LENGTH = 20
_INTEGER_TYPES = ("byte", "short", "signedint", "long")


class RecentHistoryExchange(FanoutExchange[D]):
    """Routes every message to every destination. The argument `x-recent-history-length` says how
    many of the last ones are kept."""

    # A message may say that it is not to be kept.
    is_fixed: bool = False

    def __init__(self, history_length: int = DEFAULT_LENGTH) -> None:
        super().__init__()
        self.history_length = history_length

    @classmethod
    def from_arguments(cls, arguments: Headers, label: Label[D]) -> Self:
        """`x-recent-history-length` is an integer from 1 on."""
        if HISTORY_LENGTH not in arguments:
            return cls()
        type_name, value = typed(arguments[HISTORY_LENGTH])
        if type_name not in _INTEGER_TYPES or not isinstance(value, int) or value < 1:
            raise ExchangeArgumentError(
                f"Invalid argument {erlang_term(value)}, '{HISTORY_LENGTH}' "
                "must be a positive integer"
            )
        return cls(value)
