"""The settings of a broker: their names, what is allowed, and where their values come from.

A value comes from the first of these that has it: command line, `LEVERET_…` in the environment,
the TOML file named by `config`, the default. The command line's flags, its help and
docs/configuration.md are made from the fields below.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from broker.server.memory_limit import memory_limit_bytes, size_bytes

__all__ = ["PREFIX", "Settings", "SettingsError", "memory_limit_bytes", "size_bytes"]

PREFIX = "LEVERET_"
_RedeclareMode = Literal["strict", "warn", "adopt"]
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")


class SettingsError(ValueError):
    """A setting that cannot be used. Its text is one line that names the setting and its source."""


def _address(text: str) -> str:
    """One address to listen on; an IPv6 address may stand in brackets."""
    host = text.strip().removeprefix("[").removesuffix("]")
    if ":" in host or _DIGITS_AND_DOTS.fullmatch(host):
        ipaddress.ip_address(host)
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError("not a host name")
    return host


def _split(value: object) -> object:
    """Takes commas apart, in one text as in each of several."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    return [part for text in texts for part in str(text).split(",")]


def _without_repeats(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _user_data_dir() -> Path:
    import platformdirs  # noqa: PLC0415  # only the default needs it: imports count at start-up

    return platformdirs.user_data_path("leveret", appauthor=False)


def _memory(value: object) -> str:
    """Checks the form; how many bytes it means is asked anew when the broker starts."""
    memory_limit_bytes(str(value))
    return str(value)


def _size(value: object) -> str:
    """Checks the form of a size in bytes; 0 is one."""
    size_bytes(str(value))
    return str(value)


def _pairs(value: object) -> object:
    """Takes `VHOST=MODE` apart, one or several with commas; a table stays as it is."""
    texts = _split(value)
    if not isinstance(texts, list):
        return value
    pairs = {name: mode for name, _, mode in (text.rpartition("=") for text in texts)}
    if "" in pairs or not set(pairs.values()) <= set(get_args(_RedeclareMode)):
        # The value as it was given is in the error then.
        raise ValueError("no such mode")
    return pairs


Address = Annotated[str, AfterValidator(_address)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
_ADDRESSES = "an IPv4 or IPv6 address or a host name"
_NAME = "1 to 255 characters"


class Settings(BaseSettings):
    """What `leveret serve` can be told.

    Raises pydantic.ValidationError for a bad value and SettingsError for a TOML file that cannot
    be read or has unknown keys; `load` turns both into SettingsError.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    host: Annotated[
        list[Address],
        NoDecode,
        BeforeValidator(_split),
        AfterValidator(_without_repeats),
        Field(min_length=1),
    ] = Field(
        ["127.0.0.1"],
        description="Addresses on which AMQP clients are accepted. As a flag it may be repeated; "
        "everywhere several are separated by commas. `0.0.0.0` and `::` are all addresses.",
        json_schema_extra={"allowed": _ADDRESSES},
    )
    port: int = Field(
        5672, ge=0, le=65535, description="Port for AMQP clients; 0 takes a free one."
    )
    http_host: Address = Field(
        "127.0.0.1",
        description="Address of the HTTP port (`/metrics`, `/health`).",
        json_schema_extra={"allowed": _ADDRESSES},
    )
    http_port: int = Field(15672, ge=0, le=65535, description="Port for HTTP; 0 turns HTTP off.")
    data_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=_user_data_dir,
        description="Folder in which the broker keeps what must last. One broker at a time.",
        json_schema_extra={"allowed": "a path", "default": "the user's data folder"},
    )
    transient: bool = Field(
        False, description="Keep nothing on disk: everything ends with the process."
    )
    default_user: Name = Field(
        "guest",
        description="User that is made when the data directory has none, at its first start. "
        "`guest` may connect from loopback alone, a user of any other name from anywhere.",
        json_schema_extra={"allowed": _NAME},
    )
    default_pass: SecretStr = Field(
        SecretStr("guest"),
        min_length=1,
        description="Password of the default user, when it is made. Flags can be seen by other "
        "users of the machine: prefer the environment or the file.",
        json_schema_extra={"allowed": "1 character or more"},
    )
    default_vhost: Name = Field(
        "/",
        description="Virtual host that is made with the default user, and open to it.",
        json_schema_extra={"allowed": _NAME},
    )
    definitions: Annotated[Path, AfterValidator(Path.expanduser)] | None = Field(
        None,
        description="File of definitions as RabbitMQ exports them (JSON), which is read at every "
        "start: virtual hosts, users, permissions, policies, exchanges, queues, bindings.",
        json_schema_extra={"allowed": "a path"},
    )
    config: Path | None = Field(
        None,
        description="TOML file with settings, under the names of this page.",
        json_schema_extra={"allowed": "a path"},
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important lines that are logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of a log line on stderr.")
    heartbeat_s: int = Field(
        60,
        ge=0,
        le=65535,
        description="Heartbeat interval offered to clients, in seconds; 0 offers none. "
        "The client decides.",
    )
    frame_max: int = Field(
        131072,
        ge=4096,
        le=131072,
        description="Largest frame offered to clients, in bytes. Larger bodies come in several.",
    )
    channel_max: int = Field(
        2047, ge=1, le=65535, description="Channels that one connection may open."
    )
    handshake_timeout_s: float = Field(
        10,
        gt=0,
        le=3600,
        description="Seconds that a client has from connecting to an open connection.",
    )
    max_connections: int = Field(
        0,
        ge=0,
        description="Connections at a time; 0 is as many as the file descriptors allow.",
    )
    # RabbitMQ has no such limit: a peer without a password can take every file descriptor there.
    # 1,024 in a handshake of 10 s is a reconnect storm of 100 clients a second.
    max_unauthenticated_connections: int = Field(
        1024,
        ge=1,
        description="Connections at a time whose client has not logged in yet, so that peers "
        "without a password cannot take every file descriptor. Those beyond it are closed.",
    )
    max_message_size: int = Field(
        134217728,
        ge=1,
        le=536870912,
        description="Largest message body in bytes; a publish above it closes its channel.",
    )
    memory: Annotated[str, BeforeValidator(_memory)] = Field(
        "40%",
        description="Memory that queued messages may take; above it publishers are paused. A share "
        "counts from what the machine or the control group (container) has.",
        json_schema_extra={"allowed": "a size like 512MB or 2GiB, or a share like 40%"},
    )
    disk_free_min: Annotated[str, BeforeValidator(_size)] = Field(
        "50MB",
        description="Free disk space where the data is, below which publishers are paused; 0 "
        "watches nothing.",
        json_schema_extra={"allowed": "a size like 50MB or 2GiB, or 0"},
    )
    nack_on_alarm: Annotated[
        list[Name],
        NoDecode,
        BeforeValidator(_split),
        AfterValidator(_without_repeats),
    ] = Field(
        [],
        description="Virtual hosts where publishes with confirms are refused (`basic.nack`) while "
        "memory or the disk is short, instead of pausing the connection. As a flag it may be "
        "repeated; everywhere several are separated by commas.",
        json_schema_extra={"allowed": f"names of {_NAME}", "default": "none"},
    )
    consumer_timeout_action: Literal["requeue", "cancel-consumer", "close-channel"] = Field(
        "requeue",
        description="What becomes of deliveries that a consumer does not settle in time, if it has "
        "a timeout: they go back to the queue, and with them the consumer ends or, as in RabbitMQ, "
        "its channel.",
    )
    redeclare: Annotated[dict[Name, _RedeclareMode], NoDecode, BeforeValidator(_pairs)] = Field(
        {},
        description="What a declaration does that finds a queue or exchange with other arguments: "
        "`strict` refuses it (406), `warn` leaves what is there and logs it, `adopt` takes the new "
        "arguments over. As a flag it may be repeated; everywhere several are separated by commas; "
        "in the file it is a table.",
        json_schema_extra={
            "allowed": "VHOST=MODE, with MODE one of strict, warn, adopt",
            "default": "strict everywhere",
        },
    )
    product_version: str = Field(
        "3.13.7",
        pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,4}$",
        description="RabbitMQ version announced to clients, which choose features by it.",
        json_schema_extra={"allowed": "three numbers separated by dots"},
    )
    tcp_keepalive: bool = Field(
        True, description="Let the system probe silent connections (SO_KEEPALIVE)."
    )
    consumers_per_channel_max: int = Field(
        0, ge=0, description="Consumers that one channel may have; 0 sets no limit."
    )
    login_failure_delay_s: float = Field(
        3,
        ge=0,
        le=60,
        description="Seconds before a refused login is answered, which slows guessing down.",
    )

    @classmethod
    def load(cls, flags: Mapping[str, object]) -> "Settings":
        """The settings from all sources, `flags` (name to value) before the others.

        Raises SettingsError for the first value that cannot be used.
        """
        try:
            return cls(**dict(flags))  # type: ignore[arg-type]  # each value is checked here
        except ValidationError as error:
            raise SettingsError(_line(error, flags)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, environment, TOML file: pydantic-settings asks here for the order."""
        environment = env_settings()
        for name in ("port", "http_port"):
            # Kubernetes sets LEVERET_PORT=tcp://… for every Service of the name `leveret`.
            if str(environment.get(name)).startswith("tcp://"):
                del environment[name]
        path = init_settings().get("config") or environment.get("config")
        return (
            init_settings,
            InitSettingsSource(settings_cls, init_kwargs=environment),
            InitSettingsSource(settings_cls, init_kwargs=_read_toml(path) if path else {}),
        )


def _read_toml(path: str | Path) -> dict[str, Any]:
    """The file's keys and values; SettingsError names the file and what is wrong with it."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from None
    known = [name for name in Settings.model_fields if name != "config"]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"unknown key {key!r} in the settings file {path}{hint}")
    return values


def flag(name: str) -> str:
    """The command line's spelling of a setting: `http_port` is `--http-port`."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment's spelling of a setting: `http_port` is `LEVERET_HTTP_PORT`."""
    return PREFIX + name.upper()


def allowed(field: FieldInfo) -> str:
    """What a setting may be, in words: for errors, help and documentation."""
    if isinstance(field.json_schema_extra, dict) and "allowed" in field.json_schema_extra:
        return str(field.json_schema_extra["allowed"])
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    if field.annotation is bool:
        return "true or false"
    low, high, over = (
        next((getattr(m, name) for m in field.metadata if isinstance(m, kind)), None)
        for kind, name in (
            (annotated_types.Ge, "ge"),
            (annotated_types.Le, "le"),
            (annotated_types.Gt, "gt"),
        )
    )
    words = "a whole number" if field.annotation is int else "a number"
    if over is not None:
        return f"{words} above {over}, at most {high}"
    return f"{words} from {low} to {high}" if high is not None else f"{words}, {low} or more"


def default(field: FieldInfo) -> str:
    """The default as a person writes it, the same on every machine."""
    if isinstance(field.json_schema_extra, dict) and "default" in field.json_schema_extra:
        return str(field.json_schema_extra["default"])
    value = field.default
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, list):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def _line(error: ValidationError, flags: Mapping[str, object]) -> str:
    """One line for the first of pydantic's errors."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    field = Settings.model_fields.get(name)
    if field is None:
        return f"unknown setting {name!r}"
    if name in flags:
        source = flag(name)
    elif variable(name) in map(str.upper, os.environ):
        source = variable(name)
    else:
        path = flags.get("config") or os.environ.get(variable("config"))
        source = f"the settings file {path}"
    value = "this value" if "pass" in name else repr(first["input"])
    return f"setting {name} (from {source}): {value} is not allowed, it must be {allowed(field)}"
