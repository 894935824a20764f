"""The modulus hash exchange: the hash of the routing key chooses one of the bindings.

Every binding counts, so that a destination with two of them gets twice as much; binding keys and
arguments play no part in the choice. It holds as long as the bindings stay the same: with one more
or one less nearly every key goes elsewhere, which a consistent hash exchange avoids.
"""

from typing import ClassVar, Self

from exchanges.base import Binding, D, Exchange, Headers, Identity, Label
from exchanges.hashing import hash_of


class ModulusHashExchange(Exchange[D]):
    """Routes to the destination of one binding, by the hash of the key modulo their number."""

    is_selective: ClassVar[bool] = True

    def __init__(self, label: Label[D] = str) -> None:
        super().__init__()
        self._label = label
        # The destination of each binding; None after a change.
        self._choices: list[tuple[D]] | None = []

    @classmethod
    def from_arguments(cls, arguments: Headers, label: Label[D]) -> Self:
        """Any arguments are fine, and of no effect."""
        return cls(label)

    def route(self, routing_key: str, headers: Headers) -> tuple[D, ...]:
        """The destination of one binding; none if there is none."""
        choices = self._choices
        if choices is None:
            choices = self._choices = self._in_order()
            self.preparation += len(choices)
        return choices[hash_of(routing_key) % len(choices)] if choices else ()

    def _in_order(self) -> list[tuple[D]]:
        # Not the order of binding, which is not the same after a restart.
        label = self._label
        named = sorted(
            (binding.binding_key, label(binding.destination), number)
            for number, binding in enumerate(self.bindings())
        )
        destinations = [(binding.destination,) for binding in self.bindings()]
        return [destinations[number] for _, _, number in named]

    def _add_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        self._choices = None

    def _remove_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        self._choices = None
