"""How long a message is to wait, as its headers say it: `x-delay` in milliseconds from now, or
`x-deliver-at` as a time.

The rules for `x-delay` are those of RabbitMQ's delayed message plugin
(rabbit_delayed_message_utils), without its limit of 49 days.
"""

from __future__ import annotations

import math
import re
from typing import Final

from broker.wire import properties
from broker.wire.table import INTEGER_TYPES, Field

DELAY: Final = "x-delay"
DELIVER_AT: Final = "x-deliver-at"
DELAY_MAX_MS: Final = 2**62
"""A longer delay counts as this one, so that all times fit into eight octets."""
_LONG_MAX: Final = 2**63 - 1
_OCTETS: Final = DELAY.encode(), DELIVER_AT.encode()
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_SIGNED: Final = {"byte": 1, "short": 2, "signedint": 4, "long": 8}
"""Types that can be negative, and their octets."""
_LABEL: Final = bytes([len(DELAY)]) + _OCTETS[0]


def delay_of(header: bytes, now: int) -> int:
    """Milliseconds from `now` for which a message with this header frame is to wait; 0 if it is
    not to. An `x-delay` that says a number counts more than an `x-deliver-at`."""
    if _OCTETS[0] not in header and _OCTETS[1] not in header:
        return 0
    delay = _milliseconds(properties.header_field(header, DELAY))
    if delay is None:
        time = _time(properties.header_field(header, DELIVER_AT))
        delay = 0 if time is None else time - now
    return min(max(delay, 0), DELAY_MAX_MS)


def released(header: bytes) -> bytes:
    """The header frame of a message that has waited: its `x-delay` is negative now, so that it is
    not delayed again, and consumers see that it was (as RabbitMQ's plugin has it)."""
    if _OCTETS[0] not in header:
        return header
    field = properties.header_field(header, DELAY)
    delay = _milliseconds(field)
    if field is None or delay is None or delay <= 0:
        return header
    size = _SIGNED.get(field.type)
    if size is None or header.count(_LABEL) > 1:
        kind = "long" if size is None else field.type
        return properties.with_headers(header, {DELAY: Field(kind, -min(delay, _LONG_MAX))})
    # It can only be there: one octet says its type.
    at = header.index(_LABEL) + len(_LABEL) + 1
    return header[:at] + (-delay).to_bytes(size, "big", signed=True) + header[at + size :]


def _milliseconds(field: Field | None) -> int | None:
    """What an integer, a number or the text of an integer says; None for anything else."""
    if field is None:
        return None
    value = field.value
    if field.type in INTEGER_TYPES:
        assert isinstance(value, int)
        return value
    if field.type in ("float", "double"):
        assert isinstance(value, float)
        return math.trunc(value) if math.isfinite(value) else None
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return None


def _time(field: Field | None) -> int | None:
    """A time in milliseconds since 1970. AMQP's own timestamps are in seconds."""
    if field is not None and field.type == "timestamp":
        assert isinstance(field.value, int)
        return field.value * 1000
    return _milliseconds(field)
