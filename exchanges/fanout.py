"""The fanout exchange: a message goes to every bound destination.

Routing key, headers, binding keys and arguments play no part in routing; keys and arguments
still tell bindings apart, so a destination stays until its last binding is gone. Destinations
come in the order in which they were bound.
"""

from exchanges.base import Binding, D, Destinations, Exchange, Headers, Identity


class FanoutExchange(Exchange[D]):
    """Routes every message to every destination."""

    def __init__(self) -> None:
        super().__init__()
        self._destinations: Destinations[D] = Destinations()

    def route(self, routing_key: str, headers: Headers) -> tuple[D, ...]:
        """All destinations."""
        return self._destinations.all()

    def _add_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        self._destinations.add(binding.destination)

    def _remove_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        self._destinations.remove(binding.destination)
