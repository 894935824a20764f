"""The direct exchange: a message goes to every destination bound with exactly its routing key.

Routing is one dictionary lookup, whatever the number of bindings. Headers and arguments of
bindings play no part. Destinations come in the order in which they were bound with that key.
"""

from exchanges.base import Binding, D, Destinations, Exchange, Headers, Identity


class DirectExchange(Exchange[D]):
    """Routes by equality of routing key and binding key."""

    def __init__(self) -> None:
        super().__init__()
        self._destinations: dict[str, Destinations[D]] = {}

    def route(self, routing_key: str, headers: Headers) -> tuple[D, ...]:
        """The destinations bound with this key."""
        destinations = self._destinations.get(routing_key)
        return () if destinations is None else destinations.all()

    def _add_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        destinations = self._destinations.get(binding.binding_key)
        if destinations is None:
            destinations = self._destinations[binding.binding_key] = Destinations()
        destinations.add(binding.destination)

    def _remove_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        destinations = self._destinations[binding.binding_key]
        destinations.remove(binding.destination)
        if not destinations:
            del self._destinations[binding.binding_key]
