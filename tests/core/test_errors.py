"""Protocol errors: which close the channel, and what text the client gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import (
    REPLY_TEXT_MAX,
    AMQPError,
    ReplyCode,
    exchange_title,
    queue_title,
)
from tests.wire.profiles import examples

SOFT = {311, 312, 313, 403, 404, 405, 406}


@pytest.mark.parametrize("code", list(ReplyCode))
def test_soft_errors_are_those_of_the_spec(code: ReplyCode) -> None:
    assert AMQPError(code, "x").is_hard == (code.value not in SOFT)


def test_reply_text_names_the_code() -> None:
    error = AMQPError(ReplyCode.NOT_FOUND, f"no {queue_title('q', '/')}")
    assert error.reply_text == "NOT_FOUND - no queue 'q' in vhost '/'"
    assert str(error) == error.explanation
    assert exchange_title("x", "v") == "exchange 'x' in vhost 'v'"
    assert error.method_index is None


@examples(80)
@given(st.text(max_size=400))
def test_reply_text_always_fits_a_short_string(text: str) -> None:
    shown = AMQPError(ReplyCode.NOT_FOUND, text).reply_text
    octets = shown.encode()
    assert len(octets) <= REPLY_TEXT_MAX
    whole = f"NOT_FOUND - {text}".encode("utf-8", "replace")
    if len(whole) <= REPLY_TEXT_MAX:
        assert octets == whole
    else:
        assert octets.endswith(b"...")
        assert whole.startswith(octets[:-3])
        assert len(octets) > REPLY_TEXT_MAX - 4
