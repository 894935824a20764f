"""The default user: made where there is none, as in RabbitMQ, and kept from then on."""

from __future__ import annotations

import logging

from broker.core.broker import Broker
from broker.core.users import Permission, authenticate
from broker.server.settings import Settings

LOG = logging.getLogger("leveret.server")

_LOOPBACK = "127.0.0.1"


def make_default_user(broker: Broker, settings: Settings) -> None:
    """Makes the default user, with everything allowed in the default virtual host, in a broker that
    has no user. One that has keeps them as they are, and the log names the settings that say
    otherwise."""
    if broker.users:
        _tell_what_has_no_effect(broker, settings)
        return
    broker.add_vhost(settings.default_vhost)
    broker.add_user(
        settings.default_user,
        _password(settings),
        tags=frozenset({"administrator"}),
        permissions={settings.default_vhost: Permission()},
        loopback_only=settings.default_user == "guest",
    )
    if broker.journal is not None:
        broker.journal.flush()


def _tell_what_has_no_effect(broker: Broker, settings: Settings) -> None:
    user = broker.users.get(settings.default_user)
    differs = {
        "default_user": user is None,
        "default_pass": authenticate(user, _password(settings), _LOOPBACK) is not None,
        "default_vhost": settings.default_vhost not in broker.vhosts,
    }
    given = [name for name in differs if differs[name] and name in settings.model_fields_set]
    if given:
        LOG.warning(
            "settings without effect, since the users kept in %s are used: %s",
            settings.data_dir,
            ", ".join(given),
        )


def _password(settings: Settings) -> bytes:
    return settings.default_pass.get_secret_value().encode()
