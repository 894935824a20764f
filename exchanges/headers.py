"""The headers exchange: a message goes to every destination whose arguments match its headers.

The routing key and the binding key play no part. The argument ``x-match`` says how the others
are compared with the headers: ``all`` (the default) of them must match, or ``any`` of them;
arguments whose name begins with ``x-`` are left out, unless it is ``all-with-x`` or
``any-with-x``. An argument matches a header of the same name and an equal value; with no value
(AMQP void, here None) it matches a header of that name with whatever value. Without arguments to
compare, ``all`` matches every message and ``any`` none.

Each message is compared with every binding, as the arguments of bindings have no order to search
by. Destinations come in the order in which they were bound.
"""

from collections import Counter
from collections.abc import Container
from typing import ClassVar, Generic

from exchanges.base import Binding, BindingArgumentError, D, Exchange, Headers, Identity
from exchanges.erlang import erlang_term, typed

X_MATCH = "x-match"
MODES = ("all", "any", "all-with-x", "any-with-x")
NO_VALUE = (None, ("void", None))


class HeadersExchange(Exchange[D]):
    """Routes by comparing the headers of a message with the arguments of bindings.

    An argument may be a plain value or a pair ``(AMQP type name, value)``, with RabbitMQ's names:
    longstr, signedint, void, ... Which pairs are equal is decided by the caller who makes them.
    """

    needs_headers: ClassVar[bool] = True
    is_fixed: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._patterns: dict[Identity[D], _Pattern[D]] = {}
        self._names: Counter[str] = Counter()

    @property
    def compared(self) -> Container[str]:
        """The names of all headers that a binding is about."""
        return self._names

    def route(self, routing_key: str, headers: Headers) -> tuple[D, ...]:
        """The destinations of all bindings whose arguments match these headers."""
        return tuple(
            dict.fromkeys(
                [
                    pattern.destination
                    for pattern in self._patterns.values()
                    if pattern.matches(headers)
                ]
            )
        )

    def _add_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        pattern = self._patterns[identity] = _Pattern(binding)
        self._names.update(pattern.names)

    def _remove_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        for name in self._patterns.pop(identity).names:
            self._names[name] -= 1
            if not self._names[name]:
                del self._names[name]


class _Pattern(Generic[D]):
    """The arguments of one binding, made ready for comparing."""

    __slots__ = ("destination", "equal", "matches_all", "names", "present")

    def __init__(self, binding: Binding[D]) -> None:
        mode = _mode(binding.arguments)
        with_x = mode.endswith("-with-x")
        compared = {
            name: value
            for name, value in binding.arguments.items()
            if name != X_MATCH and (with_x or not name.startswith("x-"))
        }
        self.names = list(compared)
        self.destination = binding.destination
        self.matches_all = mode.startswith("all")
        self.present = {name for name, value in compared.items() if value in NO_VALUE}
        self.equal = {name: value for name, value in compared.items() if value not in NO_VALUE}

    def matches(self, headers: Headers) -> bool:
        """Whether a message with these headers is for the destination."""
        if self.matches_all:
            return self.equal.items() <= headers.items() and self.present <= headers.keys()
        return not (
            self.equal.items().isdisjoint(headers.items())
            and self.present.isdisjoint(headers.keys())
        )


def _mode(arguments: Headers) -> str:
    if X_MATCH not in arguments:
        return "all"
    type_name, value = typed(arguments[X_MATCH])
    if type_name != "longstr":
        raise BindingArgumentError(
            f"Invalid x-match field type {type_name} (value {erlang_term(value)}); expected longstr"
        )
    if value not in MODES:
        raise BindingArgumentError(
            f"Invalid x-match field value {erlang_term(value)}; "
            "expected all, any, all-with-x, or any-with-x"
        )
    return str(value)
