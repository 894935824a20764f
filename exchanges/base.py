"""What every exchange type promises: bindings are added, removed, listed and routed through.

A binding is identified by binding key, destination and arguments together (as in RabbitMQ), so
two bindings that differ only in their arguments are two, and a message stops reaching the
destination when both are gone. Arguments are the same when they compare equal.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Container, Hashable, Iterator, Mapping
from typing import ClassVar, Generic, NamedTuple, Self, TypeAlias, TypeVar

D = TypeVar("D", bound=Hashable)

Headers: TypeAlias = Mapping[str, object]
"""Message headers, or the arguments of a binding. Values are compared with ``==``, so the caller
makes values of AMQP types that must not match unequal, e.g. by ``(type, value)`` pairs."""

Identity: TypeAlias = tuple[str, D, Hashable]
"""What makes a binding the same binding: key, destination, frozen arguments."""


Label: TypeAlias = Callable[[D], str]
"""Names a destination: no two have one label, and it stays the same whatever is restarted."""


class BindingArgumentError(ValueError):
    """A binding's arguments or its key are invalid; ``str(error)`` is the reply text for the
    client (406)."""


class ExchangeArgumentError(ValueError):
    """An exchange's arguments are invalid; ``str(error)`` is the client's reply text (406)."""


class KeyFrom(enum.Enum):
    """Where the key of a message comes from that an exchange routes by."""

    ROUTING_KEY = "routing key"
    HEADER = "header"
    PROPERTY = "property"
    RANDOM = "random"


class KeySource(NamedTuple):
    """What `Exchange.route` wants to be given as the key: the routing key, the text of a header or
    of a property (`name` says which; an empty text where the message has none), or 64 random bits
    or more as any text."""

    kind: KeyFrom
    name: str = ""


ROUTING_KEY = KeySource(KeyFrom.ROUTING_KEY)
RANDOM = KeySource(KeyFrom.RANDOM)


class Binding(NamedTuple, Generic[D]):
    """One binding of an exchange, with its arguments as the client gave them."""

    binding_key: str
    destination: D
    arguments: Headers


class Destinations(Generic[D]):
    """Destinations of one or more bindings each, in the order of their first binding."""

    __slots__ = ("_binding_counts", "_snapshot")

    def __init__(self) -> None:
        self._binding_counts: dict[D, int] = {}
        self._snapshot: tuple[D, ...] | None = ()

    def add(self, destination: D) -> None:
        """Count one more binding to the destination."""
        counts = self._binding_counts
        if destination in counts:
            counts[destination] += 1
        else:
            counts[destination] = 1
            self._snapshot = None

    def remove(self, destination: D) -> None:
        """Count one binding less; the last one removes the destination."""
        counts = self._binding_counts
        if counts[destination] > 1:
            counts[destination] -= 1
        else:
            del counts[destination]
            self._snapshot = None

    def all(self) -> tuple[D, ...]:
        """Every destination once."""
        snapshot = self._snapshot
        if snapshot is None:
            # Built on demand: binding n destinations to one key must not copy n tuples.
            snapshot = self._snapshot = tuple(self._binding_counts)
        return snapshot

    def __len__(self) -> int:
        return len(self._binding_counts)


class Exchange(ABC, Generic[D]):
    """Routes messages to the destinations of matching bindings; the name is the caller's matter.

    Not safe for use by several threads at once.
    """

    needs_headers: ClassVar[bool] = False
    """Whether `route` looks at headers; if not, the caller need not decode them."""
    is_fixed: bool = True
    """Whether all messages with one routing key go the same way."""
    is_selective: ClassVar[bool] = False
    """Whether a message goes to one destination, whatever number of routing keys it has: `route`
    is asked for the first of them only."""
    key_source: KeySource = ROUTING_KEY
    """What `route` wants as its key."""
    history_length: int = 0
    """How many of the last messages the caller keeps for destinations that are bound later."""

    @classmethod
    def from_arguments(cls, arguments: Headers, label: Label[D]) -> Self:
        """An exchange that was declared with these arguments, values as `HeadersExchange` takes
        them; most types have none. Raises `ExchangeArgumentError`."""
        return cls()

    def __init__(self) -> None:
        # Steps that `route` took to get ready after bindings had changed; who counts them sets
        # it to 0 again.
        self.preparation = 0
        self._bindings: dict[Identity[D], Binding[D]] = {}
        # A dict serves as a set that keeps the order of binding.
        self._identities: dict[D, dict[Identity[D], None]] = {}

    @property
    def compared(self) -> Container[str]:
        """The names of the headers that `route` looks at now: others need not be given."""
        return ()

    def bind(self, binding_key: str, destination: D, arguments: Headers) -> bool:
        """Add a binding; False if it exists already.

        `arguments` are kept and must not be changed afterwards; how deep they nest is limited by
        the interpreter's recursion limit. Raises `BindingArgumentError`, and then changes nothing.
        """
        identity = (binding_key, destination, freeze(arguments))
        if identity in self._bindings:
            return False
        binding = Binding(binding_key, destination, arguments)
        self._add_route(identity, binding)
        self._bindings[identity] = binding
        self._identities.setdefault(destination, {})[identity] = None
        return True

    def unbind(self, binding_key: str, destination: D, arguments: Headers) -> bool:
        """Remove a binding; False if there is none, which is no error."""
        identity = (binding_key, destination, freeze(arguments))
        binding = self._bindings.pop(identity, None)
        if binding is None:
            return False
        identities = self._identities[destination]
        del identities[identity]
        if not identities:
            del self._identities[destination]
        self._remove_route(identity, binding)
        return True

    def unbind_destination(self, destination: D) -> int:
        """Remove every binding to a destination, in time that only their number decides.

        Returns how many there were.
        """
        identities = self._identities.pop(destination, {})
        for identity in identities:
            self._remove_route(identity, self._bindings.pop(identity))
        return len(identities)

    @abstractmethod
    def route(self, routing_key: str, headers: Headers) -> Collection[D]:
        """The destinations of a message, each once, in an order that is the same every time. The
        first argument is the key that `key_source` asks for.

        The result is a snapshot: later binding and unbinding do not change it.
        """

    def bindings(self) -> Iterator[Binding[D]]:
        """Every binding, in the order of binding."""
        return iter(self._bindings.values())

    @property
    def is_empty(self) -> bool:
        """Whether there is no binding."""
        return not self._bindings

    def __len__(self) -> int:
        """How many bindings there are."""
        return len(self._bindings)

    @abstractmethod
    def _add_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        """Make `route` find a new binding; raises `BindingArgumentError` before any change."""

    @abstractmethod
    def _remove_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        """Undo `_add_route`."""


def freeze(value: object) -> Hashable:
    """A hashable stand-in: equal for equal values, whatever lists and mappings they nest."""
    if isinstance(value, Mapping):
        return (Mapping, frozenset((key, freeze(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        # Tagged, because a list and a tuple of the same items are not equal.
        return (list if isinstance(value, list) else tuple, *map(freeze, value))
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, float) and value != value:  # noqa: PLR0124
        # Not a number never equals itself; its binding could not be removed.
        return (float, "nan")
    assert isinstance(value, Hashable)
    return value
