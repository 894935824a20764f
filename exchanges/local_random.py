"""The local random exchange: a random exchange that is bound without keys.

In a cluster only destinations on the node that took the message count, which saves a way between
nodes; one broker is all local.
"""

from exchanges.base import Binding, BindingArgumentError, D, Identity
from exchanges.random import RandomExchange


class LocalRandomExchange(RandomExchange[D]):
    """Routes to one destination by chance, and takes bindings with the empty key only."""

    def _add_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        if binding.binding_key:
            raise BindingArgumentError(
                f"Non empty binding '{binding.binding_key}' key not permitted"
            )
        super()._add_route(identity, binding)
