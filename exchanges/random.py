"""The random exchange: each message goes to the destination of one binding, by chance.

Every binding counts, so that a destination with two of them gets twice as much. Routing keys,
binding keys and arguments play no part.
"""

from exchanges.base import RANDOM, D, KeySource
from exchanges.modulus_hash import ModulusHashExchange


class RandomExchange(ModulusHashExchange[D]):
    """Routes to one destination by chance, which the caller brings along as the key."""

    key_source: KeySource = RANDOM
    is_fixed: bool = False
