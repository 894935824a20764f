"""Routing: which destinations a message goes to, one exchange type per module.

Nothing here knows of queues, connections or storage: a destination is any hashable value.
"""

from typing import Any

from exchanges.base import (
    Binding,
    BindingArgumentError,
    Exchange,
    ExchangeArgumentError,
    Headers,
    KeyFrom,
    KeySource,
)
from exchanges.consistent_hash import ConsistentHashExchange
from exchanges.direct import DirectExchange
from exchanges.fanout import FanoutExchange
from exchanges.headers import HeadersExchange
from exchanges.local_random import LocalRandomExchange
from exchanges.modulus_hash import ModulusHashExchange
from exchanges.random import RandomExchange
from exchanges.recent_history import RecentHistoryExchange
from exchanges.topic import TopicExchange

EXCHANGE_TYPES: dict[str, type[Exchange[Any]]] = {
    "direct": DirectExchange,
    "fanout": FanoutExchange,
    "topic": TopicExchange,
    "headers": HeadersExchange,
    "x-consistent-hash": ConsistentHashExchange,
    "x-modulus-hash": ModulusHashExchange,
    "x-random": RandomExchange,
    "x-local-random": LocalRandomExchange,
    "x-recent-history": RecentHistoryExchange,
}
"""Exchange types by the name a client gives in exchange.declare."""

__all__ = [
    "EXCHANGE_TYPES",
    "Binding",
    "BindingArgumentError",
    "ConsistentHashExchange",
    "DirectExchange",
    "Exchange",
    "ExchangeArgumentError",
    "FanoutExchange",
    "Headers",
    "HeadersExchange",
    "KeyFrom",
    "KeySource",
    "LocalRandomExchange",
    "ModulusHashExchange",
    "RandomExchange",
    "RecentHistoryExchange",
    "TopicExchange",
]
