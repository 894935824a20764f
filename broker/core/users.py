"""Users, what they may do, and who may log in."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from broker.core.patterns import compile_pattern

_SALT_SIZE = 4
HASHES: dict[str, Callable[[bytes], Any]] = {
    "rabbit_password_hashing_sha256": hashlib.sha256,
    "rabbit_password_hashing_sha512": hashlib.sha512,
    # Of RabbitMQ before 3.6; no hash of ours.
    "rabbit_password_hashing_md5": lambda octets: hashlib.md5(octets, usedforsecurity=False),
}
"""RabbitMQ's hashing algorithms, the first one for new passwords."""
HASH_SIZES = {name: _SALT_SIZE + hashed(b"").digest_size for name, hashed in HASHES.items()}
"""Octets of salt and hash, by which a password's hash tells its algorithm."""
_BY_SIZE = {size: name for name, size in HASH_SIZES.items()}
_SHA256 = "rabbit_password_hashing_sha256"


@dataclass(frozen=True, slots=True)
class Permission:
    """Three regular expressions over the names of a virtual host's resources, searched and not
    anchored, as in RabbitMQ ("Access Control"); `^$` and the empty one allow nothing."""

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"

    def allows(self, operation: str, name: str) -> bool:
        """Whether `operation` ("configure", "write" or "read") is allowed on `name`."""
        pattern: str = getattr(self, operation)
        return pattern == ".*" or compile_pattern(pattern or "^$").search(name) is not None


@dataclass(slots=True)
class User:
    """Somebody who may log in. `password_hash` is RabbitMQ's: salt, then the hash of salt and
    password (HASHES); None refuses every password. `loopback_only` users come from this machine
    alone."""

    name: str
    password_hash: bytes | None
    tags: frozenset[str] = frozenset()
    permissions: dict[str, Permission] = field(default_factory=dict)
    loopback_only: bool = False


def hash_password(password: bytes, salt: bytes, algorithm: str = _SHA256) -> bytes:
    """`salt` (four octets) and the salted hash of the password (RabbitMQ, "Credentials")."""
    assert len(salt) == _SALT_SIZE
    return salt + bytes(HASHES[algorithm](salt + password).digest())


_NOBODY = hash_password(b"", b"none")


def authenticate(user: User | None, password: bytes, peer_host: str) -> str | None:
    """None if this password lets the user in from that address, else the reason for the log.

    Takes the same time for unknown users. A blank password is always refused.
    """
    known = (user.password_hash if user else None) or _NOBODY
    given = hash_password(password, known[:_SALT_SIZE], _BY_SIZE[len(known)])
    matches = hmac.compare_digest(given, known)
    if user is None:
        return "unknown user"
    if user.password_hash is None or not password or not matches:
        return "wrong password"
    if user.loopback_only and not is_loopback(peer_host):
        return "this user may only connect from this machine (loopback)"
    return None


def is_loopback(host: str) -> bool:
    """Whether a peer address is of this machine. IPv4 addresses inside IPv6 count as IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
