"""Generated content headers, made by pamqp or octet by octet."""

import datetime as dt
from typing import Any

from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broker.wire import properties
from broker.wire.frames import HEADER, frame
from broker.wire.table import Field, encode_table
from tests.wire.strategies import as_pamqp, pamqp_tables, tables

PROPERTIES: dict[int, tuple[str, str]] = {
    properties.CONTENT_TYPE: ("content_type", "shortstr"),
    properties.CONTENT_ENCODING: ("content_encoding", "shortstr"),
    properties.HEADERS: ("headers", "table"),
    properties.DELIVERY_MODE: ("delivery_mode", "octet"),
    properties.PRIORITY: ("priority", "octet"),
    properties.CORRELATION_ID: ("correlation_id", "shortstr"),
    properties.REPLY_TO: ("reply_to", "shortstr"),
    properties.EXPIRATION: ("expiration", "shortstr"),
    properties.MESSAGE_ID: ("message_id", "shortstr"),
    properties.TIMESTAMP: ("timestamp", "timestamp"),
    properties.TYPE: ("message_type", "shortstr"),
    properties.USER_ID: ("user_id", "shortstr"),
    properties.APP_ID: ("app_id", "shortstr"),
    properties.CLUSTER_ID: ("cluster_id", "shortstr"),
}
"""Name (pamqp's) and type by flag, in wire order."""

# pamqp leaves out empty strings, so they are never empty here.
_PAMQP_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "shortstr": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    "octet": st.integers(0, 255),
    "timestamp": st.integers(0, 2**32 - 1),
    "table": pamqp_tables,
}
_ANY_OCTETS: dict[str, st.SearchStrategy[bytes]] = {
    "shortstr": st.binary(max_size=8).map(lambda raw: bytes([len(raw)]) + raw),
    "octet": st.binary(min_size=1, max_size=1),
    "timestamp": st.binary(min_size=8, max_size=8),
    "table": tables.map(encode_table),
}


def _by_flag(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[int, Any]]:
    return st.fixed_dictionaries(
        {}, optional={flag: values[kind] for flag, (_, kind) in PROPERTIES.items()}
    ).map(lambda chosen: {flag: chosen[flag] for flag in PROPERTIES if flag in chosen})


pamqp_properties = _by_flag(_PAMQP_VALUES)
"""Values by flag that pamqp can encode."""
raw_properties = _by_flag(_ANY_OCTETS)
"""Octets by flag, in wire order: any property list that is sound."""


def flags_and_octets(chosen: dict[int, bytes]) -> tuple[int, bytes]:
    """The flags and the property list of `raw_properties`."""
    return sum(chosen), b"".join(chosen.values())


def pamqp_header(channel: int, body_size: int, chosen: dict[int, Any]) -> bytes:
    """The header frame that pamqp makes of `pamqp_properties`."""
    arguments: dict[str, Any] = {}
    for flag, value in chosen.items():
        name, kind = PROPERTIES[flag]
        if kind == "timestamp":
            value = dt.datetime.fromtimestamp(value, tz=dt.UTC)  # noqa: PLW2901
        elif kind == "table":
            value = as_pamqp(Field("table", value))  # noqa: PLW2901
        arguments[name] = value
    made = Basic.Properties.__new__(Basic.Properties)
    for name, _ in PROPERTIES.values():
        setattr(made, name, arguments.get(name))
    return frame(HEADER, channel, ContentHeader(0, body_size, made).marshal())
