"""Users, what they may do, and who may log in."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache

_SALT_SIZE = 4


@dataclass(frozen=True, slots=True)
class Permission:
    """Three regular expressions over the names of a virtual host's resources, searched and not
    anchored, as in RabbitMQ ("Access Control"); `^$` allows nothing."""

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"

    def allows(self, operation: str, name: str) -> bool:
        """Whether `operation` ("configure", "write" or "read") is allowed on `name`."""
        pattern: str = getattr(self, operation)
        return pattern == ".*" or _compiled(pattern).search(name) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@dataclass(slots=True)
class User:
    """Somebody who may log in. `password_hash` is RabbitMQ's: salt, then SHA-256 of salt and
    password; None refuses every password. `loopback_only` users come from this machine alone."""

    name: str
    password_hash: bytes | None
    tags: frozenset[str] = frozenset()
    permissions: dict[str, Permission] = field(default_factory=dict)
    loopback_only: bool = False


def hash_password(password: bytes, salt: bytes) -> bytes:
    """`salt` (four octets) and the salted SHA-256 of the password (RabbitMQ, "Credentials")."""
    assert len(salt) == _SALT_SIZE
    return salt + hashlib.sha256(salt + password).digest()


_NOBODY = hash_password(b"", b"none")


def authenticate(user: User | None, password: bytes, peer_host: str) -> str | None:
    """None if this password lets the user in from that address, else the reason for the log.

    Takes the same time for unknown users. A blank password is always refused.
    """
    known = (user.password_hash if user else None) or _NOBODY
    matches = hmac.compare_digest(hash_password(password, known[:_SALT_SIZE]), known)
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
