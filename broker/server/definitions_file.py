"""A file of definitions as RabbitMQ exports them: its shape, and what is wrong with it.

    rabbitmqctl export_definitions FILE
    leveret serve --definitions FILE

All of it is checked before any of it is used (`definitions_import`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from broker.core.patterns import compile_pattern
from broker.core.policies import Policy, PolicyError, make_policy
from broker.core.users import HASH_SIZES, Permission
from broker.wire.table import TABLE_DEPTH_MAX, Table
from broker.wire.table import Field as TableField

__all__ = ["Definitions", "DefinitionsError", "read_definitions", "table"]

_INTEGERS = range(-(2**63), 2**63)
_STRING_MAX = 255
_OPERATOR_POLICY = "operator_policy"
_SAID_OF_THE_FILE = frozenset(
    {
        "rabbit_version",
        "rabbitmq_version",
        "product_name",
        "product_version",
        "rabbitmq_definition_format",
        "original_cluster_name",
        "original_vhost_name",
        "explanation",
        "metadata",
        "description",
        "default_queue_type",
    }
)
"""Keys of a file that are about the file."""


class DefinitionsError(ValueError):
    """A file of definitions that cannot be used. Its text is one line."""


def _short(text: str) -> str:
    if len(text.encode()) > _STRING_MAX:
        raise ValueError(f"{text[:20]!r}... has more than {_STRING_MAX} bytes")
    return text


def _pattern(text: str) -> str:
    try:
        compile_pattern(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


def _tags(value: object) -> object:
    """Older files have them in one text, with commas."""
    return [tag for tag in value.split(",") if tag] if isinstance(value, str) else value


def _dictionary(value: object) -> object:
    """rabbitmqctl writes some as lists of pairs, and empty ones as empty lists."""
    if isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return dict(value) if all(isinstance(key, str) for key, _ in value) else value
    return value


Short = Annotated[str, AfterValidator(_short)]
Name = Annotated[Short, Field(min_length=1)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Arguments = Annotated[dict[str, Any], BeforeValidator(_dictionary)]


class _Item(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class VHostItem(_Item):
    """A virtual host."""

    name: Name
    limits: Arguments = {}


class UserItem(_Item):
    """A user, with the hash of the password or the password itself."""

    name: Name
    password_hash: str | None = None
    password: str | None = None
    hashing_algorithm: str | None = None
    tags: Annotated[list[str], BeforeValidator(_tags)] = []
    limits: Arguments = {}

    def hashed(self) -> bytes | None:
        """The salted hash; None if there is none. Raises DefinitionsError."""
        if not self.password_hash:
            return None
        known = ", ".join(HASH_SIZES)
        algorithm = self.hashing_algorithm
        if algorithm is not None and algorithm not in HASH_SIZES:
            raise DefinitionsError(
                f"the password of user '{self.name}' is hashed by {algorithm!r}, which is unknown "
                f"here: known are {known}"
            )
        try:
            octets = base64.b64decode(self.password_hash, validate=True)
        except ValueError:
            octets = b""
        sizes = HASH_SIZES.values() if algorithm is None else [HASH_SIZES[algorithm]]
        if len(octets) not in sizes:
            raise DefinitionsError(
                f"the password_hash of user '{self.name}' is not the base64 of a salt and a hash "
                f"({algorithm or known})"
            )
        return octets


class PermissionItem(_Item):
    """What a user may do in a virtual host."""

    user: Name
    vhost: Name
    configure: Pattern
    write: Pattern
    read: Pattern

    def permission(self) -> Permission:
        """The three patterns."""
        return Permission(self.configure, self.write, self.read)


class PolicyItem(_Item):
    """A policy; what is beside its names is checked as if somebody set it."""

    model_config = ConfigDict(extra="allow")

    vhost: Name
    name: str

    def policy(self, *, is_operator: bool) -> Policy:
        """The policy. Raises DefinitionsError."""
        value = dict(self.model_extra or {})
        value["definition"] = _dictionary(value.get("definition"))
        try:
            return make_policy(self.name, value, is_operator=is_operator)
        except PolicyError as error:
            kind = "operator policy" if is_operator else "policy"
            raise DefinitionsError(
                f"{kind} '{self.name}' in vhost '{self.vhost}': {error}"
            ) from None


class ParameterItem(_Item):
    """A runtime parameter; operator policies are among them."""

    component: str
    name: str
    vhost: str = ""
    value: Annotated[Any, BeforeValidator(_dictionary)] = None


class _Declared(_Item):
    vhost: Name
    durable: bool = True
    auto_delete: bool = False
    arguments: Arguments = {}


class ExchangeItem(_Declared):
    """An exchange."""

    name: Short
    type: str
    internal: bool = False


class QueueItem(_Declared):
    """A queue."""

    name: Name
    type: str = "classic"

    @property
    def is_stream(self) -> bool:
        """Whether it is no queue."""
        return "stream" in (self.type, self.arguments.get("x-queue-type"))


class BindingItem(_Item):
    """A binding of a queue or an exchange to an exchange."""

    vhost: Name
    source: Short
    destination: Name
    destination_type: Literal["queue", "exchange"]
    routing_key: Short = ""
    arguments: Arguments = {}


class Definitions(BaseModel):
    """All that a file defines, and in `model_extra` what nobody knows."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    vhosts: list[VHostItem] = []
    users: list[UserItem] = []
    permissions: list[PermissionItem] = []
    topic_permissions: list[Any] = []
    parameters: list[ParameterItem] = []
    global_parameters: list[Any] = []
    policies: list[PolicyItem] = []
    operator_policies: list[PolicyItem] = []
    exchanges: list[ExchangeItem] = []
    queues: list[QueueItem] = []
    bindings: list[BindingItem] = []

    def all_policies(self) -> Iterator[tuple[str, Policy]]:
        """Each policy and operator policy with its virtual host. Raises DefinitionsError."""
        for item in self.policies:
            yield item.vhost, item.policy(is_operator=False)
        for item in [*self.operator_policies, *self._operator_parameters()]:
            yield item.vhost, item.policy(is_operator=True)

    def _operator_parameters(self) -> Iterator[PolicyItem]:
        for item in self.parameters:
            if item.component == _OPERATOR_POLICY and isinstance(item.value, Mapping):
                value = {key: item.value[key] for key in item.value if key not in ("vhost", "name")}
                yield PolicyItem(vhost=item.vhost, name=item.name, **value)

    def unused(self) -> Iterator[str]:
        """What the file has and nobody uses, in words."""
        components = {item.component for item in self.parameters} - {_OPERATOR_POLICY}
        if components:
            yield f"parameters ({', '.join(sorted(components))})"
        for name in ("topic_permissions", "global_parameters"):
            if getattr(self, name):
                yield name
        if any(item.limits for item in self.vhosts):
            yield "limits of vhosts"
        if any(item.limits for item in self.users):
            yield "limits of users"
        yield from sorted((self.model_extra or {}).keys() - _SAID_OF_THE_FILE)


def read_definitions(path: Path) -> Definitions:
    """The file, all of it checked. Raises DefinitionsError."""
    try:
        octets = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        definitions = Definitions.model_validate_json(octets)
        for _ in definitions.all_policies():
            pass
        for user in definitions.users:
            user.hashed()
        declared: list[_Declared | BindingItem] = [*definitions.exchanges, *definitions.queues]
        for item in [*declared, *definitions.bindings]:
            table(item.arguments)
    except OSError as error:
        raise DefinitionsError(
            f"cannot read the definitions file {path}: {error.strerror}"
        ) from None
    except ValidationError as error:
        raise DefinitionsError(f"cannot use the definitions file {path}: {_first(error)}") from None
    except DefinitionsError as error:
        raise DefinitionsError(f"cannot use the definitions file {path}: {error}") from None
    return definitions


def _first(error: ValidationError) -> str:
    """The first of pydantic's errors, with the place as in JSON."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    return f"{place.lstrip('.')}: {text}" if place else text


def table(arguments: Mapping[str, Any]) -> Table:
    """Arguments as a client would send them. Raises DefinitionsError."""
    return _table(arguments, 0)


def _table(arguments: Mapping[str, Any], depth: int) -> Table:
    for name in arguments:
        if len(name.encode()) > _STRING_MAX:
            raise DefinitionsError(
                f"the name of an argument, {name[:20]!r}..., has more than {_STRING_MAX} bytes"
            )
    return {name: _field(value, depth) for name, value in arguments.items()}


def _field(value: object, depth: int) -> TableField:
    if depth >= TABLE_DEPTH_MAX:
        raise DefinitionsError("arguments are nested too deep")
    if isinstance(value, bool):
        return TableField("bool", value)
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise DefinitionsError(f"the argument {value} is too large")
        return TableField("long", value)
    if isinstance(value, float):
        return TableField("double", value)
    if isinstance(value, str):
        return TableField("longstr", value)
    if isinstance(value, list):
        return TableField("array", [_field(item, depth + 1) for item in value])
    if isinstance(value, Mapping):
        return TableField("table", _table(value, depth + 1))
    return TableField("void", None)
