"""Content headers: checked, read and edited as raw octets, equal to what pamqp makes."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pamqp.header import ContentHeader

from broker.wire.frames import CONTENT_HEADER
from broker.wire.methods import shortstr
from broker.wire.properties import (
    CONTENT_TYPE,
    DELIVERY_MODE,
    HEADERS,
    MESSAGE_ID,
    PRIORITY,
    REPLY_TO,
    PropertiesError,
    check_properties,
    first_text,
    flags_of,
    header_frame,
    headers_table,
    message_id,
    octet_property,
    property_shapes,
    replace_property,
    text_property,
    without_header,
)
from broker.wire.table import Field, Table, decode_table, encode_table
from tests.wire.contents import (
    PROPERTIES,
    flags_and_octets,
    pamqp_header,
    pamqp_properties,
    raw_properties,
)
from tests.wire.profiles import examples
from tests.wire.strategies import as_text, field_names, tables

AT = CONTENT_HEADER.size
TEXTS = [flag for flag, (_, kind) in PROPERTIES.items() if kind == "shortstr"]
channels = st.integers(1, 65535)
sizes = st.integers(0, 2**64 - 1)


def check(header: bytes) -> None:
    check_properties(header, AT, len(header) - 1, flags_of(header))


@examples(50)
@given(channels, sizes, pamqp_properties)
def test_header_of_pamqp_is_sound_and_says_what_was_put_in(
    channel: int, size: int, chosen: dict[int, Any]
) -> None:
    header = pamqp_header(channel, size, chosen)
    check(header)
    assert flags_of(header) == sum(chosen)
    for flag, (_, kind) in PROPERTIES.items():
        if kind == "shortstr":
            assert text_property(header, flag) == chosen.get(flag)
        elif kind == "octet":
            assert octet_property(header, flag) == chosen.get(flag)
    assert headers_table(header) == chosen.get(HEADERS, {})


@examples(30)
@given(channels, sizes, pamqp_properties)
def test_header_frame_is_the_one_pamqp_makes(
    channel: int, size: int, chosen: dict[int, Any]
) -> None:
    header = pamqp_header(channel, size, chosen)
    assert header_frame(channel, size, sum(chosen), header[AT:-1]) == header


@examples(60)
@given(raw_properties)
def test_every_sound_property_list_is_taken(chosen: dict[int, bytes]) -> None:
    flags, octets = flags_and_octets(chosen)
    check_properties(octets, 0, len(octets), flags)
    check_properties(b"zz" + octets + b"zz", 2, 2 + len(octets), flags)
    assert [flag for flag, _ in property_shapes(flags)] == list(chosen)


@examples(50)
@given(raw_properties, st.data())
def test_property_list_of_another_length_is_refused(
    chosen: dict[int, bytes], data: st.DataObject
) -> None:
    flags, octets = flags_and_octets(chosen)
    assume(octets)
    end = data.draw(st.integers(0, len(octets) - 1))
    for chunk in (octets, octets[:end], octets + b"\x00" * 300):
        with pytest.raises(PropertiesError):
            check_properties(chunk, 0, end, flags)
    with pytest.raises(PropertiesError):
        check_properties(octets + b"\x00", 0, len(octets) + 1, flags)


@pytest.mark.parametrize("flags", [1, 2, 3, 0x8001, 0xFFFF])
def test_unknown_flags_are_refused(flags: int) -> None:
    with pytest.raises(PropertiesError, match="flags"):
        check_properties(bytes(400), 0, 400, flags)


@examples(150)
@given(st.integers(0, 0xFFFF), st.binary(max_size=40))
def test_any_octets_are_taken_or_refused_and_what_is_taken_can_be_read(
    flags: int, octets: bytes
) -> None:
    try:
        check_properties(octets, 0, len(octets), flags)
    except PropertiesError:
        return
    header = header_frame(1, 0, flags, octets)
    for flag in TEXTS:
        text_property(header, flag)
    for flag in (DELIVERY_MODE, PRIORITY):
        octet_property(header, flag)
    headers_table(header)


def test_table_inside_the_headers_is_checked() -> None:
    def with_headers(table: bytes) -> None:
        octets = len(table).to_bytes(4, "big") + table
        check_properties(octets, 0, len(octets), HEADERS)

    with_headers(b"\x01aV")
    for table in (b"\x01a", b"\x01a?", b"\x01aF\x00\x00\x00\x01", b"\x01aS\xff\xff\xff\xff"):
        with pytest.raises(PropertiesError):
            with_headers(table)


def test_headers_that_reach_beyond_the_list_are_refused_even_if_octets_follow() -> None:
    octets = (6).to_bytes(4, "big") + b"\x01aS\x00\x00\x00\x00"
    with pytest.raises(PropertiesError):
        check_properties(octets, 0, 8, HEADERS)


# Editing


@examples(60)
@given(channels, sizes, raw_properties, st.sampled_from(TEXTS), st.binary(max_size=255))
def test_replaced_property_leaves_its_neighbours_bit_for_bit(
    channel: int, size: int, chosen: dict[int, bytes], flag: int, value: bytes
) -> None:
    header = header_frame(channel, size, *flags_and_octets(chosen))
    octets = bytes([len(value)]) + value
    wanted = {f: {**chosen, flag: octets}[f] for f in PROPERTIES if f in chosen or f == flag}
    replaced = replace_property(header, flag, octets)
    assert replaced == header_frame(channel, size, *flags_and_octets(wanted))
    assert text_property(replaced, flag) == as_text(value)
    del wanted[flag]
    removed = replace_property(replaced, flag, None)
    assert removed == header_frame(channel, size, *flags_and_octets(wanted))
    assert text_property(removed, flag) is None


@examples(60)
@given(raw_properties, tables, st.sampled_from(["BCC", "CC", "a", ""]), st.booleans())
def test_cut_out_header_leaves_everything_else_bit_for_bit(
    chosen: dict[int, bytes], table: Table, name: str, is_there: bool
) -> None:
    table.pop(name, None)
    entries = list(table.items())
    place = len(entries) // 2
    more = [(name, Field("array", [Field("longstr", "q")]))] if is_there else []

    def header(entries: list[tuple[str, Field]]) -> bytes:
        octets = {**chosen, HEADERS: encode_table(dict(entries))}
        return header_frame(7, 99, *flags_and_octets({f: octets[f] for f in sorted(octets)[::-1]}))

    with_it = header([*entries[:place], *more, *entries[place:]])
    assert without_header(with_it, name) == header(entries)


@examples(25)
@given(pamqp_properties, st.text(st.characters(codec="ascii"), min_size=1, max_size=8))
def test_pamqp_reads_what_was_edited(chosen: dict[int, Any], address: str) -> None:
    header = replace_property(pamqp_header(1, 5, chosen), REPLY_TO, shortstr(address))
    read = ContentHeader()
    read.unmarshal(header[7:-1])
    assert read.body_size == 5
    assert read.properties.reply_to == address
    for flag, (name, kind) in PROPERTIES.items():
        if kind == "shortstr" and flag != REPLY_TO:
            assert (getattr(read.properties, name) or None) == chosen.get(flag)


@examples(30)
@given(raw_properties, field_names)
def test_headers_are_read_with_their_types(chosen: dict[int, bytes], name: str) -> None:
    header = header_frame(1, 0, *flags_and_octets(chosen))
    octets = chosen.get(HEADERS, bytes(4))
    assert headers_table(header) == decode_table(octets[4:])
    assert headers_table(replace_property(header, HEADERS, None)) == {}


@given(
    tables,
    st.sampled_from(["a", "x-deduplication-header", ""]),
    st.one_of(st.text(max_size=20), st.integers(0, 5)),
    st.sampled_from([b"", b"text/plain"]),
    st.booleans(),
)
def test_first_text_is_what_the_first_field_says(
    others: Table, name: str, value: str | int, content_type: bytes, goes_last: bool
) -> None:
    kind = "longstr" if isinstance(value, str) else "signedint"
    table: Table = {**others, name: Field(kind, value)}
    if not goes_last:
        table = {name: Field(kind, value), **{k: v for k, v in others.items() if k != name}}
    flags = HEADERS | (CONTENT_TYPE if content_type else 0)
    octets = (bytes([len(content_type)]) + content_type if content_type else b"") + encode_table(
        table
    )
    header = header_frame(1, 5, flags, octets)
    label = bytes([len(name)]) + name.encode()
    found = first_text(header, label)
    is_first = next(iter(table)) == name
    assert found == (value.encode() if is_first and isinstance(value, str) else None)


def test_without_headers_there_is_no_first_text() -> None:
    kinds = ((0, b""), (MESSAGE_ID, b"\x02ab"), (HEADERS, bytes(4)))
    for flags, octets in kinds:
        header = header_frame(1, 5, flags, octets)
        assert first_text(header, b"\x01a") is None
        assert message_id(header) == (b"ab" if flags == MESSAGE_ID else b"")
