"""`--definitions FILE`: makes in a broker what the file defines, at every start.

What can be changed is as in the file from then on, as in RabbitMQ: users, permissions, policies.
What cannot, queues and exchanges that are there with other properties, is left as it is and named.
Nothing is ever taken away.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from broker.core.broker import Broker
from broker.core.exchange import Destination, is_type
from broker.core.users import User, hash_password
from broker.core.vhost import VHost
from broker.errors import AMQPError, ReplyCode
from broker.server.definitions_file import (
    BindingItem,
    Definitions,
    DefinitionsError,
    ExchangeItem,
    QueueItem,
    UserItem,
    read_definitions,
    table,
)
from broker.server.log import printable

LOG = logging.getLogger("leveret.server")

_NAMED_MAX = 10
"""Things that one line of the log names."""


def import_definitions(broker: Broker, path: Path) -> None:
    """Makes what this file defines. Raises DefinitionsError, before anything is changed unless a
    queue or exchange cannot be declared."""
    definitions = read_definitions(path)
    _Import(broker, path, definitions).run()


class _Import:
    """One reading of one file into one broker."""

    def __init__(self, broker: Broker, path: Path, definitions: Definitions) -> None:
        self._broker = broker
        self._path = path
        self._file = definitions
        # What is left out or left as it is, in words.
        self._left: list[str] = []
        # How many of what is new or different now.
        self._changed: dict[str, int] = {}

    def run(self) -> None:
        """Makes all of it and says in the log what was made and what was not."""
        self._check_names()
        for vhost in self._file.vhosts:
            if vhost.name not in self._broker.vhosts:
                self._broker.add_vhost(vhost.name)
                self._count("vhosts")
        self._make_users()
        for name, policy in self._file.all_policies():
            policies = self._broker.vhosts[name].policies
            if policies.get(policy.name, is_operator=policy.is_operator) != policy:
                policies.set(policy)
                self._count("policies")
        for exchange in self._file.exchanges:
            self._declare_exchange(exchange)
        for queue in self._file.queues:
            self._declare_queue(queue)
        for binding in self._file.bindings:
            self._bind(binding)
        if self._broker.journal is not None:
            self._broker.journal.flush()
        self._tell()

    def _count(self, what: str) -> None:
        self._changed[what] = self._changed.get(what, 0) + 1

    def _tell(self) -> None:
        counts = ", ".join(f"{count} {what}" for what, count in self._changed.items())
        LOG.info(
            "definitions of %s: %s",
            self._path,
            f"new or changed: {counts}" if counts else "nothing is new",
        )
        unused = list(self._file.unused())
        if unused:
            LOG.warning("definitions of %s: without effect: %s", self._path, ", ".join(unused))
        if self._left:
            named = "; ".join(printable(text) for text in self._left[:_NAMED_MAX])
            more = len(self._left) - _NAMED_MAX
            rest = f"; and {more} more" if more > 0 else ""
            LOG.warning("definitions of %s: not as in the file: %s%s", self._path, named, rest)

    def _check_names(self) -> None:
        """Everything is in a virtual host, and every permission somebody's, that is there."""
        file = self._file
        vhosts = self._broker.vhosts.keys() | {vhost.name for vhost in file.vhosts}
        self._check_vhosts("permissions", (item.vhost for item in file.permissions), vhosts)
        self._check_vhosts("policies", (name for name, _ in file.all_policies()), vhosts)
        for what, items in (
            ("exchanges", file.exchanges),
            ("queues", file.queues),
            ("bindings", file.bindings),
        ):
            self._check_vhosts(what, (item.vhost for item in items), vhosts)
        users = self._broker.users.keys() | {user.name for user in file.users}
        for item in file.permissions:
            if item.user not in users:
                raise self._error(f"permissions are for user '{item.user}', who is not there")

    def _check_vhosts(self, what: str, named: Iterable[str], vhosts: Iterable[str]) -> None:
        missing = set(named).difference(vhosts)
        if missing:
            raise self._error(f"{what} are in vhost '{min(missing)}', which is not there")

    def _error(self, text: str) -> DefinitionsError:
        return DefinitionsError(f"cannot use the definitions file {self._path}: {printable(text)}")

    # Users

    def _make_users(self) -> None:
        permissions = {name: dict(user.permissions) for name, user in self._broker.users.items()}
        for item in self._file.permissions:
            permissions.setdefault(item.user, {})[item.vhost] = item.permission()
        items = {item.name: item for item in self._file.users}
        for name in items.keys() | permissions.keys():
            known = self._broker.users.get(name)
            user = self._user(items.get(name), known)
            user.permissions = permissions.get(name, {})
            if user != known:
                self._broker.put_user(user)
                self._count("users")

    def _user(self, item: UserItem | None, known: User | None) -> User:
        """The user as the file says, or as known where it says nothing."""
        if item is None:
            assert known is not None
            return User(known.name, known.password_hash, known.tags, {}, known.loopback_only)
        hashed = item.hashed()
        if hashed is None and item.password:
            password = item.password.encode()
            # The same salt again, so that the same password is no change.
            salt = (known.password_hash if known else None) or self._broker.random_bytes(4)
            hashed = hash_password(password, salt[:4])
        return User(item.name, hashed, frozenset(item.tags), {}, loopback_only=item.name == "guest")

    # What is declared

    def _declare_exchange(self, item: ExchangeItem) -> None:
        vhost = self._broker.vhosts[item.vhost]
        is_new = item.name not in vhost.exchanges
        if item.name == "":
            return
        if not is_type(item.type):
            self._left.append(f"exchange '{item.name}' in vhost '{item.vhost}' of type {item.type}")
            return
        try:
            vhost.declare_exchange(
                item.name,
                item.type,
                durable=item.durable,
                auto_delete=item.auto_delete,
                internal=item.internal,
                arguments=table(item.arguments),
            )
        except AMQPError as error:
            self._refused(error, is_new=is_new)
        else:
            if is_new:
                self._count("exchanges")

    def _declare_queue(self, item: QueueItem) -> None:
        vhost = self._broker.vhosts[item.vhost]
        is_new = item.name not in vhost.queues
        if item.is_stream:
            self._left.append(f"stream '{item.name}' in vhost '{item.vhost}'")
            return
        try:
            vhost.declare_queue(
                item.name,
                durable=item.durable,
                auto_delete=item.auto_delete,
                arguments=table(item.arguments),
            )
        except AMQPError as error:
            self._refused(error, is_new=is_new)
        else:
            if is_new:
                self._count("queues")

    def _refused(self, error: AMQPError, *, is_new: bool) -> None:
        """What is there already and differs is left; what cannot be is an error."""
        if is_new or error.code is ReplyCode.INTERNAL_ERROR:
            raise self._error(error.explanation)
        self._left.append(error.explanation)

    def _bind(self, item: BindingItem) -> None:
        vhost = self._broker.vhosts[item.vhost]
        source = vhost.exchanges.get(item.source)
        destination = _destination(vhost, item)
        if item.source == "":
            # RabbitMQ shows that every queue is bound to the default exchange by its name.
            return
        if source is None or destination is None:
            self._left.append(
                f"binding of {item.destination_type} '{item.destination}' to exchange "
                f"'{item.source}' in vhost '{item.vhost}': one of them is not there"
            )
            return
        count = len(source.router)
        try:
            vhost.bind(source, destination, item.routing_key, table(item.arguments))
        except AMQPError as error:
            raise self._error(error.explanation) from None
        if len(source.router) != count:
            self._count("bindings")


def _destination(vhost: VHost, item: BindingItem) -> Destination | None:
    if item.destination_type == "queue":
        return vhost.queues.get(item.destination)
    return vhost.exchanges.get(item.destination)
