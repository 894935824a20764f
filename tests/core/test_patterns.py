"""Patterns of policies and permissions: PCRE's, as far as Python can say them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.patterns import compile_pattern
from tests.wire.profiles import examples


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        ("a", "xax", "x"),
        ("", "anything", None),
        ("^a$", "a", "ba"),
        ("^[[:alpha:]]+$", "abc", "a1"),
        ("[[:alpha:][:digit:]_]", "-5-", "-"),
        (r"\w", "a", "é"),
        ("^(?!amq\\.).*", "x", "amq.x"),
        ("(?i)^A", "abc", "b"),
        ("(?P<n>a)", "a", "b"),
        ("[[a]", "[", "b"),
        ("[^[]", "a", "["),
        ("[]a]", "]", "b"),
        ("^[^]a]$", "b", "]"),
        ("[a&&b]", "&", "c"),
        ("^[a||b~~]+$", "~", "c"),
        ("[+--]", ",", "a"),
        ("[--a]", "Z", "b"),
        ("[^--a]", "b", "Z"),
        ("[a-]", "-", "b"),
        ("[a-z-9]", "-", "8"),
        (r"[\]]", "]", "a"),
        (r"[a\-z]", "-", "b"),
    ],
)
def test_pattern_finds_what_rabbitmq_finds(pattern: str, found: str, not_found: str | None) -> None:
    compiled = compile_pattern(pattern)
    assert compiled.search(found)
    assert not_found is None or not compiled.search(not_found)


@given(st.text("[]^-&~|:alph\\()*ab", max_size=12))
@examples(500)
def test_any_pattern_is_compiled_without_a_warning_or_refused(pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except re.error:
        return
