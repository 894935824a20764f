"""Field tables: every wire type kept bit for bit, and no octets that only one reader takes."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode

from broker.wire.table import (
    FIELD_SIZES,
    TABLE_DEPTH_MAX,
    TABLE_FIELDS_MAX,
    Field,
    Table,
    TableError,
    check_table,
    decode_table,
    encode_table,
    plain,
    read_fields,
    remove_fields,
)
from tests.wire.profiles import examples
from tests.wire.strategies import as_pamqp, as_text, fields, pamqp_tables, tables

SIZES = {"t": 1, "b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8, "f": 4, "d": 8}
SIZES |= {"T": 8, "D": 5, "V": 0}


def named(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + value


def long(code: bytes, octets: bytes) -> bytes:
    return code + len(octets).to_bytes(4, "big") + octets


def _values(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    arrays = st.lists(inner, max_size=3).map(lambda items: long(b"A", b"".join(items)))
    return st.one_of(arrays, _tables(inner).map(lambda octets: long(b"F", octets)))


def _tables(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.dictionaries(st.binary(max_size=6), values, max_size=3).map(
        lambda entries: b"".join(named(name, value) for name, value in entries.items())
    )


def _fixed(code: str) -> st.SearchStrategy[bytes]:
    octets = st.binary(min_size=SIZES[code], max_size=SIZES[code])
    if code == "t":
        octets = st.sampled_from([b"\x00", b"\x01"])
    if code in "fd":
        # A signalling NaN is the one value that a float does not bring back.
        octets = st.floats(width=32, allow_nan=False).map(
            lambda value: struct.pack(">f" if code == "f" else ">d", value)
        )
    return octets.map(lambda raw: code.encode() + raw)


wire_values = st.recursive(
    st.one_of(
        # Both `l` and `L` are the same type to RabbitMQ, which writes `l`.
        *(_fixed(code) for code in SIZES if code != "L"),
        st.binary(max_size=6).map(lambda raw: long(b"S", raw)),
        st.binary(max_size=6).map(lambda raw: long(b"x", raw)),
    ),
    _values,
    max_leaves=5,
)
wire_tables = _tables(wire_values)


@examples(60)
@given(wire_tables)
def test_octets_of_a_table_come_back_bit_for_bit(octets: bytes) -> None:
    check_table(octets, 0, len(octets))
    assert encode_table(decode_table(octets)) == len(octets).to_bytes(4, "big") + octets


@examples(40)
@given(tables)
def test_fields_come_back_with_their_types(table: Table) -> None:
    assert decode_table(encode_table(table)[4:]) == table


@examples(30)
@given(pamqp_tables)
def test_table_is_encoded_as_pamqp_does(table: Table) -> None:
    assert encode_table(table) == encode.field_table(as_pamqp(Field("table", table)))


@pytest.mark.parametrize(
    ("octets", "field"),
    [
        (b"t\x01", Field("bool", value=True)),
        (b"t\x07", Field("bool", value=True)),
        (b"t\x00", Field("bool", value=False)),
        (b"b\xff", Field("byte", -1)),
        (b"B\xff", Field("unsignedbyte", 255)),
        (b"s\xff\xfe", Field("short", -2)),
        (b"u\xff\xfe", Field("unsignedshort", 65534)),
        (b"I\xff\xff\xff\xff", Field("signedint", -1)),
        (b"i\xff\xff\xff\xff", Field("unsignedint", 2**32 - 1)),
        (b"l" + b"\xff" * 8, Field("long", -1)),
        (b"L" + b"\xff" * 8, Field("long", -1)),
        (b"f\x3f\x80\x00\x00", Field("float", 1.0)),
        (b"d\x3f\xf0" + bytes(6), Field("double", 1.0)),
        (b"T" + b"\xff" * 8, Field("timestamp", 2**64 - 1)),
        (b"D\x02\x00\x00\x01\x00", Field("decimal", (2, 256))),
        (b"V", Field("void", None)),
        (b"S\x00\x00\x00\x02\xc3\xa9", Field("longstr", "é")),
        (b"S\x00\x00\x00\x01\xff", Field("longstr", "\udcff")),
        (b"x\x00\x00\x00\x01\xff", Field("binary", b"\xff")),
        (b"A\x00\x00\x00\x03V" + b"b\x01", Field("array", [Field("void", None), Field("byte", 1)])),
        (b"F\x00\x00\x00\x03\x01aV", Field("table", {"a": Field("void", None)})),
    ],
    ids=lambda value: value.type if isinstance(value, Field) else None,
)
def test_wire_type_has_rabbitmqs_name_and_value(octets: bytes, field: Field) -> None:
    assert decode_table(b"\x01k" + octets) == {"k": field}


def test_of_equal_names_the_first_counts() -> None:
    assert decode_table(b"\x01kb\x01\x01kb\x02") == {"k": Field("byte", 1)}


# What one reader takes the other takes


def agree(octets: bytes) -> None:
    try:
        decode_table(octets)
    except TableError:
        with pytest.raises(TableError):
            check_table(octets, 0, len(octets))
        # Whatever stands behind the table does not help.
        with pytest.raises(TableError):
            check_table(octets + b"\x01aV" * 20, 0, len(octets))
    else:
        check_table(octets, 0, len(octets))
        check_table(b"zz" + octets + b"zz", 2, 2 + len(octets))


@examples(200)
@given(st.binary(max_size=30))
def test_both_readers_agree_on_any_octets(octets: bytes) -> None:
    agree(octets)


@examples(60)
@given(wire_tables, st.data())
def test_both_readers_agree_on_a_table_with_one_octet_changed(
    octets: bytes, data: st.DataObject
) -> None:
    if octets:
        at = data.draw(st.integers(0, len(octets) - 1))
        new = data.draw(st.sampled_from([*b"\x00\x01\xff", *b"AFSVxt?"]))
        agree(octets[:at] + bytes([new]) + octets[at + 1 :])


@examples(30)
@given(wire_tables, st.data())
def test_both_readers_agree_on_a_table_cut_off(octets: bytes, data: st.DataObject) -> None:
    agree(octets[: data.draw(st.integers(0, len(octets)))])


@pytest.mark.parametrize("code", range(256))
def test_both_readers_know_the_same_types(code: int) -> None:
    for size in range(12):
        agree(b"\x01k" + bytes([code]) + bytes(size))
    known = set("tbBsuIilLfdTDVSxFA")
    size = FIELD_SIZES[code]
    assert (size >= 0 or chr(code) in "SxFA") == (chr(code) in known)
    assert size == SIZES.get(chr(code), -1)


@pytest.mark.parametrize("code", ["S", "x", "A", "F"])
@pytest.mark.parametrize("size", [0, 1, 2**31, 2**32 - 1])
def test_length_beyond_the_table_is_an_error(code: str, size: int) -> None:
    octets = b"\x01k" + code.encode() + size.to_bytes(4, "big")
    agree(octets)
    if size:
        with pytest.raises(TableError):
            decode_table(octets)


def test_nested_table_may_not_reach_beyond_the_one_around_it() -> None:
    inner = b"\x01aS\x00\x00\x00\x03abc"
    octets = b"\x01kF" + (len(inner) - 1).to_bytes(4, "big") + inner
    agree(octets)
    with pytest.raises(TableError):
        decode_table(octets)


# Depth


def tables_inside_each_other(depth: int) -> bytes:
    octets = b""
    for _ in range(depth):
        octets = named(b"k", long(b"F", octets))
    return octets


def arrays_inside_each_other(depth: int) -> bytes:
    octets = b""
    for _ in range(depth):
        octets = long(b"A", octets)
    return named(b"k", octets)


def both_inside_each_other(depth: int) -> bytes:
    octets = b""
    for level in range(depth):
        octets = long(b"F", named(b"k", octets)) if level % 2 else long(b"A", octets)
    return named(b"k", octets)


nesting = pytest.mark.parametrize(
    "nested", [tables_inside_each_other, arrays_inside_each_other, both_inside_each_other]
)


@nesting
def test_a_hundred_levels_are_fine(nested: Callable[[int], bytes]) -> None:
    assert TABLE_DEPTH_MAX == 100
    octets = nested(TABLE_DEPTH_MAX)
    agree(octets)
    assert encode_table(decode_table(octets))[4:] == octets


@nesting
@pytest.mark.parametrize("depth", [TABLE_DEPTH_MAX + 1, 1_000, 10_000])
def test_more_levels_are_refused(nested: Callable[[int], bytes], depth: int) -> None:
    octets = nested(depth)
    with pytest.raises(TableError):
        decode_table(octets)
    with pytest.raises(TableError):
        check_table(octets, 0, len(octets))


def many_fields(count: int) -> bytes:
    return b"\x01aV" * count


def many_items(count: int) -> bytes:
    return named(b"k", long(b"A", b"V" * (count - 1)))


def many_tables(count: int) -> bytes:
    """Each inner table is a field, and has one."""
    return named(b"k", long(b"F", many_fields(1))) * (count // 2)


@pytest.mark.parametrize("made", [many_fields, many_items, many_tables])
def test_fields_are_counted_wherever_they_are(made: Callable[[int], bytes]) -> None:
    octets = made(TABLE_FIELDS_MAX)
    check_table(octets, 0, len(octets))
    decode_table(octets)
    for count in (TABLE_FIELDS_MAX + 2, 40_000):
        octets = made(count)
        with pytest.raises(TableError):
            check_table(octets, 0, len(octets))
        with pytest.raises(TableError):
            decode_table(octets)


# What else is done with tables


@examples(40)
@given(wire_tables, st.sampled_from(["a", "b", "BCC", ""]))
def test_removing_a_field_leaves_the_others_bit_for_bit(octets: bytes, name: str) -> None:
    before = decode_table(octets)
    removed = remove_fields(octets, [name])
    before.pop(name, None)
    assert encode_table(before)[4:] == removed


@examples(60)
@given(wire_tables, st.sets(st.sampled_from(["a", "b", "BCC", ""])))
def test_fields_that_are_asked_for_are_those_of_the_whole_table(
    octets: bytes, names: set[str]
) -> None:
    whole = decode_table(octets)
    # What is not a number does not equal itself.
    expected = {name: field for name, field in whole.items() if name in names}
    assert str(read_fields(octets, names)) == str(expected)
    assert str(read_fields(octets, whole)) == str(whole)


def test_of_equal_names_the_first_is_read() -> None:
    assert read_fields(b"\x01ab\x01\x01bb\x02\x01ab\x03", "a") == {"a": Field("byte", 1)}


def test_removing_takes_every_field_of_that_name_and_none_inside_others() -> None:
    nested = named(b"n", long(b"F", named(b"BCC", b"V")))
    octets = named(b"BCC", b"V") + nested + named(b"BCC", b"b\x01") + named(b"BCCx", b"V")
    assert remove_fields(octets, ["BCC"]) == nested + named(b"BCCx", b"V")


@pytest.mark.parametrize("width", ["byte", "short", "signedint", "long", "timestamp"])
def test_integers_of_every_width_compare_by_value(width: str) -> None:
    assert plain(Field(width, 5)) == plain(Field("unsignedint", 5))
    assert plain(Field(width, 5)) != plain(Field("unsignedint", 6))


def test_boolean_equals_no_number_and_text_equals_its_octets() -> None:
    assert plain(Field("bool", value=True)) != plain(Field("byte", 1))
    assert plain(Field("bool", value=False)) != plain(Field("byte", 0))
    assert plain(Field("longstr", "é\udcff")) == plain(Field("binary", b"\xc3\xa9\xff"))
    assert as_text(b"\xff") == "\udcff"


@examples(25)
@given(fields)
def test_every_field_compares_equal_to_itself(field: Field) -> None:
    assert plain(field) == plain(field)
    assert plain(Field("array", [field])) == plain(Field("array", [field]))
    assert plain(Field("table", {"a": field})) == plain(Field("table", {"a": field}))
