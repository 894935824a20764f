"""Generated fields, tables, methods and property lists, for Hypothesis."""

import datetime as dt
import decimal
from typing import Any

from hypothesis import strategies as st
from pamqp import base

from broker.wire.methods import AccessRequest, AccessRequestOk, Method, commands
from broker.wire.table import Field

INT_RANGES = {
    "byte": (-(2**7), 2**7 - 1),
    "unsignedbyte": (0, 2**8 - 1),
    "short": (-(2**15), 2**15 - 1),
    "unsignedshort": (0, 2**16 - 1),
    "signedint": (-(2**31), 2**31 - 1),
    "unsignedint": (0, 2**32 - 1),
    "long": (-(2**63), 2**63 - 1),
    "timestamp": (0, 2**64 - 1),
}
# The ranges in which pamqp chooses just this wire type for an integer.
PAMQP_INTS = (
    ("byte", -(2**7), 2**7 - 1),
    ("short", -(2**15), -(2**7) - 1),
    ("short", 2**7, 2**15 - 1),
    ("unsignedshort", 2**15, 2**16 - 1),
    ("signedint", -(2**31), -(2**15) - 1),
    ("signedint", 2**16, 2**31 - 1),
    ("unsignedint", 2**31, 2**32 - 1),
    ("long", -(2**63), -(2**31) - 1),
    ("long", 2**32, 2**63 - 1),
)


def as_text(octets: bytes) -> str:
    """Octets as the broker keeps text, whatever they are."""
    return octets.decode("utf-8", "surrogateescape")


any_text = st.binary(max_size=8).map(as_text)
utf8 = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
field_names = st.one_of(st.sampled_from(["a", "b", "CC", "BCC", "x-match", ""]), any_text)


def _field(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Field]:
    return values.map(lambda value: Field(kind, value))


def _nested(fields: st.SearchStrategy[Field]) -> st.SearchStrategy[Field]:
    return st.one_of(
        _field("array", st.lists(fields, max_size=3)),
        _field("table", st.dictionaries(field_names, fields, max_size=3)),
    )


flat_fields = st.one_of(
    *(_field(kind, st.integers(low, high)) for kind, (low, high) in INT_RANGES.items()),
    _field("bool", st.booleans()),
    _field("float", st.floats(width=32, allow_nan=False)),
    _field("double", st.floats(allow_nan=False)),
    _field("decimal", st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1))),
    _field("void", st.none()),
    _field("longstr", any_text),
    _field("binary", st.binary(max_size=8)),
)
"""A field of each wire type that holds no others."""
fields = st.recursive(flat_fields, _nested, max_leaves=5)
tables = st.dictionaries(field_names, fields, max_size=4)

pamqp_flat_fields = st.one_of(
    *(_field(kind, st.integers(low, high)) for kind, low, high in PAMQP_INTS),
    _field("bool", st.booleans()),
    _field("float", st.floats(width=32, allow_nan=False)),
    _field("decimal", st.tuples(st.integers(0, 255), st.integers(0, 2**31 - 1))),
    _field("timestamp", st.integers(0, 2**32 - 1)),
    _field("void", st.none()),
    _field("longstr", utf8),
    _field("binary", st.binary(max_size=8)),
)


def _sorted(table: dict[str, Field]) -> dict[str, Field]:
    return dict(sorted(table.items()))


def _pamqp_nested(fields: st.SearchStrategy[Field]) -> st.SearchStrategy[Field]:
    return st.one_of(
        _field("array", st.lists(fields, max_size=3)),
        _field("table", st.dictionaries(utf8, fields, max_size=3).map(_sorted)),
    )


pamqp_tables = st.dictionaries(
    utf8, st.recursive(pamqp_flat_fields, _pamqp_nested, max_leaves=5), max_size=4
).map(_sorted)
"""Tables whose octets pamqp would write just so: it chooses the types, and sorts the names."""


def as_pamqp(field: Field) -> Any:
    """The value of a field as pamqp's encoder wants it."""
    value: Any = field.value
    if field.type == "table":
        return {name: as_pamqp(inner) for name, inner in value.items()}
    if field.type == "array":
        return [as_pamqp(inner) for inner in value]
    if field.type == "decimal":
        scale, digits = value
        return decimal.Decimal(digits).scaleb(-scale)
    if field.type == "timestamp":
        return dt.datetime.fromtimestamp(value, tz=dt.UTC)
    if field.type == "binary":
        return bytearray(value)
    return value


ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    # pamqp takes this one for a signed integer.
    "longlong": st.integers(0, 2**63 - 1),
    "timestamp": st.integers(0, 2**64 - 1),
    "shortstr": utf8,
    "longstr": utf8.map(str.encode),
    "table": pamqp_tables,
}
METHOD_CLASSES: list[type[Method]] = [
    *commands.INDEX_MAPPING.values(),
    AccessRequest,
    AccessRequestOk,
]


def arguments_of(cls: type[Method]) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments for a method of this class, by name."""
    return st.fixed_dictionaries({name: ARGUMENTS[cls.amqp_type(name)] for name in cls.__slots__})


methods = st.sampled_from(METHOD_CLASSES).flatmap(
    lambda cls: st.tuples(st.just(cls), arguments_of(cls))
)
"""A method class, and arguments for it."""


def pamqp_method(cls: type[Method], arguments: dict[str, Any]) -> base.Frame:
    """The same method for pamqp, with its checks of names left out."""
    lenient = type(cls.__name__, (cls,), {"validate": lambda self: None})
    method: base.Frame = object.__new__(lenient)
    for name, value in arguments.items():
        setattr(method, name, as_pamqp_argument(cls.amqp_type(name), value))
    return method


def as_pamqp_argument(kind: str, value: Any) -> Any:
    """An argument of a method as pamqp wants it, and gives it."""
    if kind == "table":
        return as_pamqp(Field("table", value))
    return value.decode() if kind == "longstr" else value
