"""The hash of a key, for exchanges that choose a destination by it.

It is the same in every process and on every machine, so that a key has its destination again after
a restart.
"""

from hashlib import blake2b

HASH_OCTETS = 8


def hash_of(key: str) -> int:
    """64 evenly spread bits of a key."""
    octets = key.encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(octets, digest_size=HASH_OCTETS).digest(), "big")
