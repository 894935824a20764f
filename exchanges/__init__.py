"""Routing: which destinations a message goes to, one exchange type per module.

Nothing here knows of queues, connections or storage: a destination is any hashable value.
"""

from typing import Any

from exchanges.base import Binding, BindingArgumentError, Exchange, Headers
from exchanges.direct import DirectExchange
from exchanges.fanout import FanoutExchange
from exchanges.headers import HeadersExchange
from exchanges.topic import TopicExchange

EXCHANGE_TYPES: dict[str, type[Exchange[Any]]] = {
    "direct": DirectExchange,
    "fanout": FanoutExchange,
    "topic": TopicExchange,
    "headers": HeadersExchange,
}
"""Exchange types by the name a client gives in exchange.declare."""

__all__ = [
    "EXCHANGE_TYPES",
    "Binding",
    "BindingArgumentError",
    "DirectExchange",
    "Exchange",
    "FanoutExchange",
    "Headers",
    "HeadersExchange",
    "TopicExchange",
]
