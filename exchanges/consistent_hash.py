"""The consistent hash exchange: keys are spread over the destinations by weight, and stay there.

A binding key is a weight, an integer from 1 on; the weights of a destination's bindings add up. The
key of a message is its routing key, or with the argument ``hash-header`` the value of that header,
or with ``hash-property`` one of three properties. All messages with one key go to one destination;
those without the header or property have one key, too.

Each destination has points on a ring, for each unit of its weight so many, where the hash of its
label puts them. A message goes to the next point from the hash of its key on. So a destination that
comes or goes takes or leaves its share of the keys, and all others stay where they are. Where the
points are does not depend on the order of binding: after a restart they are the same.

The points of one ring are limited. Where weights add up to more than `EXACT_WEIGHT`, each unit has
half as many, or a quarter, and so on; when that changes, more keys than one share find another
place.
"""

import re
import struct
from array import array
from bisect import bisect_left
from hashlib import shake_128
from typing import ClassVar, Self

from exchanges.base import (
    ROUTING_KEY,
    Binding,
    BindingArgumentError,
    D,
    Exchange,
    ExchangeArgumentError,
    Headers,
    Identity,
    KeyFrom,
    KeySource,
    Label,
)
from exchanges.erlang import erlang_term, typed
from exchanges.hashing import HASH_OCTETS, hash_of

HASH_HEADER = "hash-header"
HASH_PROPERTY = "hash-property"
PROPERTIES = ("correlation_id", "message_id", "timestamp")
"""Those that may be hashed."""
POINTS_PER_WEIGHT = 100
"""So that the share of a destination of weight 1 is right within some 10 %."""
POINTS_MAX = 1 << 16
"""Points of one ring, but for destinations that have a single one: 16 octets each, and all of them
are placed anew in some 40 ms when bindings have changed."""
EXACT_WEIGHT = POINTS_MAX // POINTS_PER_WEIGHT


class ConsistentHashExchange(Exchange[D]):
    """Routes to one destination, by the place of a key on a ring."""

    is_selective: ClassVar[bool] = True

    def __init__(self, label: Label[D] = str, key_source: KeySource = ROUTING_KEY) -> None:
        super().__init__()
        self.key_source = key_source
        self.is_fixed = key_source == ROUTING_KEY
        self._label = label
        self._weights: dict[D, int] = {}
        # Where the points are, in order, and the destination of each; stale after a change.
        self._points = array("Q")
        self._owners: list[tuple[D]] = []
        self._is_stale = False

    @classmethod
    def from_arguments(cls, arguments: Headers, label: Label[D]) -> Self:
        """`hash-header` names a header, `hash-property` one of `PROPERTIES`."""
        header = _name(arguments, HASH_HEADER)
        hashed_property = _name(arguments, HASH_PROPERTY)
        if header is not None and hashed_property is not None:
            raise ExchangeArgumentError("hash-header and hash-property are mutually exclusive")
        if header is not None:
            return cls(label, KeySource(KeyFrom.HEADER, header))
        if hashed_property is None:
            return cls(label)
        if hashed_property not in PROPERTIES:
            raise ExchangeArgumentError(f"Unsupported property: {hashed_property}")
        return cls(label, KeySource(KeyFrom.PROPERTY, hashed_property))

    def route(self, routing_key: str, headers: Headers) -> tuple[D, ...]:
        """The destination whose point comes next; none if nothing is bound."""
        if self._is_stale:
            self._place_points()
        points = self._points
        if not points:
            return ()
        place = bisect_left(points, hash_of(routing_key))
        return self._owners[place if place < len(points) else 0]

    def _place_points(self) -> None:
        total = sum(self._weights.values()) * POINTS_PER_WEIGHT
        # Halved, so that the points that stay are where they were.
        shift = max(0, (total - 1) // POINTS_MAX).bit_length()
        owners: dict[int, tuple[D]] = {}
        # The order decides whose a point is that two want.
        for destination in sorted(self._weights, key=self._label, reverse=True):
            count = max(1, self._weights[destination] * POINTS_PER_WEIGHT >> shift)
            octets = shake_128(self._label(destination).encode("utf-8", "surrogateescape"))
            points = struct.unpack(f">{count}Q", octets.digest(count * HASH_OCTETS))
            owners.update(dict.fromkeys(points, (destination,)))
        in_order = sorted(owners)
        self._points = array("Q", in_order)
        self._owners = [owners[point] for point in in_order]
        self._is_stale = False
        self.preparation += len(in_order)

    def _add_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        weight = _weight(binding.binding_key)
        self._weights[binding.destination] = self._weights.get(binding.destination, 0) + weight
        self._is_stale = True

    def _remove_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        self._weights[binding.destination] -= _weight(binding.binding_key)
        if not self._weights[binding.destination]:
            del self._weights[binding.destination]
        self._is_stale = True


def _name(arguments: Headers, argument: str) -> str | None:
    if argument not in arguments:
        return None
    type_name, value = typed(arguments[argument])
    if type_name != "longstr":
        raise ExchangeArgumentError(
            f"Invalid {argument} field type {type_name} (value {erlang_term(value)}); "
            "expected longstr"
        )
    return str(value)


def _weight(binding_key: str) -> int:
    if not re.fullmatch("[+-]?[0-9]+", binding_key):
        raise BindingArgumentError(
            f"The binding key must be an integer: {erlang_term(binding_key)}"
        )
    weight = int(binding_key)
    if weight < 1:
        raise BindingArgumentError("The binding key must be greater than 0")
    return weight
