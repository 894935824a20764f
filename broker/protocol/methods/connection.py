"""Class connection (AMQP 0-9-1 reference, section 1.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from broker.errors import AMQPError, ReplyCode
from broker.protocol.heartbeat import Heartbeat
from broker.protocol.states import ConnectionState
from broker.wire.frames import FRAME_MIN_SIZE
from broker.wire.methods import commands, make
from broker.wire.table import Field, Table, TableError, decode_table, encode_table

if TYPE_CHECKING:
    from broker.protocol.connection import Connection

CAPABILITIES = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)
"""What RabbitMQ 3.13 announces; clients switch features on by it."""
MECHANISMS = ("PLAIN", "AMQPLAIN")
_LOGIN_REFUSED = (
    "Login was refused using authentication mechanism {}. For details see the broker logfile."
)


def start(connection: Connection) -> None:
    """connection.start: who we are, and how to log in."""
    connection.send_method(
        0,
        make(
            commands.Connection.Start,
            version_major=0,
            version_minor=9,
            server_properties=_server_properties(connection),
            mechanisms=" ".join(MECHANISMS),
            locales="en_US",
        ),
    )


def _server_properties(connection: Connection) -> Table:
    identity = connection.broker.identity
    texts = {
        "cluster_name": identity.cluster_name,
        "copyright": "Copyright (c) the Leveret authors.",
        "information": f"Leveret {identity.leveret_version}, Apache-2.0",
        "platform": f"Leveret {identity.leveret_version} (Python)",
        "product": "RabbitMQ",
        "version": identity.product_version,
    }
    capabilities = {name: Field("bool", value=True) for name in CAPABILITIES}
    return {
        "capabilities": Field("table", capabilities),
        **{name: Field("longstr", text) for name, text in texts.items()},
    }


def start_ok(connection: Connection, method: commands.Connection.StartOk) -> None:
    """connection.start-ok: who the client is. A login that fails is told only to clients that
    announced authentication_failure_close."""
    client_properties = cast(Table, method.client_properties)
    connection.client_properties = encode_table(client_properties)
    connection.client_name = _name(client_properties)
    connection.capabilities = _announced(client_properties)
    mechanism = method.mechanism
    if mechanism not in MECHANISMS:
        raise AMQPError(
            ReplyCode.COMMAND_INVALID, f"unknown authentication mechanism '{mechanism}'"
        )
    response = cast(bytes, method.response)
    credentials = _plain(response) if mechanism == "PLAIN" else _amqplain(response)
    name, password = credentials
    try:
        connection.user = connection.broker.log_in(name, password, connection.peer_host)
    except AMQPError as error:
        _refuse_login(connection, name, mechanism, error)
        return
    connection.state = ConnectionState.TUNING
    limits = connection.broker.limits
    connection.send_method(
        0,
        make(
            commands.Connection.Tune,
            channel_max=limits.channel_max,
            frame_max=limits.frame_max,
            heartbeat=limits.heartbeat_s,
        ),
    )


def _name(client_properties: Table) -> str:
    """What the client calls itself, as several libraries let one do."""
    field = client_properties.get("connection_name")
    return str(field.value) if field is not None and field.type == "longstr" else ""


def _announced(client_properties: Table) -> frozenset[str]:
    field = client_properties.get("capabilities")
    if field is None or field.type != "table":
        return frozenset()
    table = cast(Table, field.value)
    return frozenset(name for name in CAPABILITIES if name in table and table[name].value is True)


def _plain(response: bytes) -> tuple[str, bytes]:
    """RFC 4616: NUL, name, NUL, password. Acting for somebody else is not supported."""
    parts = response.split(b"\x00")
    if len(parts) != 3 or parts[0]:
        raise AMQPError(ReplyCode.SYNTAX_ERROR, "the response is not as RFC 4616 wants it")
    return parts[1].decode("utf-8", "surrogateescape"), parts[2]


def _amqplain(response: bytes) -> tuple[str, bytes]:
    """A field table without its length, with LOGIN and PASSWORD."""
    try:
        table = decode_table(response)
    except TableError:
        table = {}
    login, password = table.get("LOGIN"), table.get("PASSWORD")
    if not login or not password or login.type != "longstr" or password.type != "longstr":
        raise AMQPError(
            ReplyCode.SYNTAX_ERROR, "AMQPLAIN auth info is not a table with LOGIN and PASSWORD"
        )
    return str(login.value), str(password.value).encode("utf-8", "surrogateescape")


def _refuse_login(connection: Connection, name: str, mechanism: str, error: AMQPError) -> None:
    connection.broker.note(
        "login_refused",
        {"connection": connection.name, "user": name, "reason": error.explanation},
    )
    connection.close_reason = "login refused"
    connection.client_properties, connection.client_name = b"", ""
    if connection.understands("authentication_failure_close"):
        refusal = AMQPError(ReplyCode.ACCESS_REFUSED, _LOGIN_REFUSED.format(mechanism))
        connection.close(refusal.code, refusal.reply_text)
    else:
        connection.close_silently()


def tune_ok(connection: Connection, method: commands.Connection.TuneOk) -> None:
    """connection.tune-ok: what the client takes of the offer; 0 means no limit, and is refused
    where there is one. Any heartbeat is fine."""
    limits = connection.broker.limits
    _check_tuned("frame_max", method.frame_max, FRAME_MIN_SIZE, limits.frame_max)
    _check_tuned("channel_max", method.channel_max, 1, limits.channel_max, " (no limit)")
    connection.frame_max = method.frame_max
    connection.channel_max = method.channel_max
    now = connection.heartbeat.last_received
    connection.heartbeat = Heartbeat(method.heartbeat, now)
    connection.state = ConnectionState.OPENING


def _check_tuned(name: str, value: int, lowest: int, offered: int, zero_means: str = "") -> None:
    if value == 0 or value > offered:
        shown = f"0{zero_means}" if value == 0 else str(value)
        raise AMQPError(
            ReplyCode.NOT_ALLOWED,
            f"negotiated {name} = {shown} is higher than the maximum allowed value ({offered})",
        )
    if value < lowest:
        raise AMQPError(
            ReplyCode.NOT_ALLOWED,
            f"negotiated {name} = {value} is lower than the minimum allowed value ({lowest})",
        )


def open(  # noqa: A001  # named as in the spec
    connection: Connection, method: commands.Connection.Open
) -> None:
    """connection.open: which virtual host. NOT_ALLOWED if it is not there, or not for this
    user."""
    connection.vhost = connection.broker.enter_vhost(method.virtual_host, connection.user)
    connection.broker.add_connection(connection)
    connection.state = ConnectionState.RUNNING
    connection.was_open = True
    connection.send_method(0, make(commands.Connection.OpenOk, known_hosts=""))
    connection.broker.note(
        "connection_opened",
        {
            "connection": connection.name,
            "user": connection.user.name,
            "vhost": connection.vhost.name,
            "client": connection.client_name,
        },
    )


def close(connection: Connection, method: commands.Connection.Close) -> None:
    """connection.close: exclusive queues are gone before it is answered. In a connection that is
    closing already it is answered too."""
    connection.close_reason = connection.close_reason or "closed by the client"
    connection.flush_confirms()
    connection.release()
    connection.send_method(0, commands.Connection.CloseOk())
    connection.finish()


def close_ok(connection: Connection, method: commands.Connection.CloseOk) -> None:
    """connection.close-ok: the socket can go."""
    connection.finish()


def update_secret(connection: Connection, method: commands.Connection.UpdateSecret) -> None:
    """connection.update-secret: answered; passwords of the internal user base do not expire, so
    there is nothing to take over (as in RabbitMQ with its internal backend)."""
    connection.send_method(0, commands.Connection.UpdateSecretOk())
