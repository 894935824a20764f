"""What the broker notes, as log lines. Names come from clients: each is made printable here."""

from __future__ import annotations

import logging
from collections.abc import Callable

from broker.core.arguments import CANCEL_CONSUMER, CLOSE_CHANNEL, REQUEUE
from broker.core.policies import Policy
from broker.server.log import printable

CONNECTION = logging.getLogger("leveret.connection")
CHANNEL = logging.getLogger("leveret.channel")
QUEUE = logging.getLogger("leveret.queue")
SERVER = logging.getLogger("leveret.server")

Details = dict[str, object]


def log_note(event: str, details: Details) -> None:
    """Logs one event of the broker; an unknown one is an error of ours."""
    _WRITERS[event](details)


def _text(details: Details, name: str) -> str:
    return printable(str(details[name]))


def _peer(details: Details) -> dict[str, object]:
    """The client's address, by which repeated lines are counted."""
    return {"peer": str(details["connection"]).partition(" -> ")[0].rpartition(":")[0]}


def _connection_opened(details: Details) -> None:
    client = f" as {_text(details, 'client')!r}" if details["client"] else ""
    CONNECTION.info(
        "%s opened%s: user '%s', vhost '%s'",
        details["connection"],
        client,
        _text(details, "user"),
        _text(details, "vhost"),
        extra=_peer(details),
    )


def _connection_closed(details: Details) -> None:
    reason = _text(details, "reason")
    if details["opened"]:
        CONNECTION.info(
            "%s closed: user '%s', vhost '%s': %s",
            details["connection"],
            _text(details, "user"),
            _text(details, "vhost"),
            reason,
            extra=_peer(details),
        )
    else:
        # A socket that said nothing is a health check of a load balancer, most of the time.
        CONNECTION.log(
            logging.INFO if details["said_something"] else logging.DEBUG,
            "%s closed before it was open: %s",
            details["connection"],
            reason,
            extra=_peer(details),
        )


def _login_refused(details: Details) -> None:
    CONNECTION.warning(
        "%s login refused for user '%s': %s",
        details["connection"],
        _text(details, "user"),
        details["reason"],
        extra=_peer(details),
    )


def _handshake_error(details: Details) -> None:
    CONNECTION.warning(
        "%s handshake failed: %s",
        details["connection"],
        _text(details, "text"),
        extra=_peer(details),
    )


def _connection_error(details: Details) -> None:
    CONNECTION.error(
        "%s closed with an error: %s",
        details["connection"],
        _text(details, "text"),
        extra=_peer(details),
    )


def _channel_error(details: Details) -> None:
    CHANNEL.error(
        "%s channel %s closed with an error: %s",
        details["connection"],
        details["channel"],
        _text(details, "text"),
        extra=_peer(details),
    )


def _consumer_timeout(details: Details) -> None:
    who = f"consumer '{_text(details, 'consumer')}'" if details["consumer"] else "basic.get"
    CHANNEL.warning(
        "%s channel %s: %s has not settled %s deliveries of queue '%s' in vhost '%s' within %s ms, "
        "the oldest for %s ms: %s",
        details["connection"],
        details["channel"],
        who,
        details["count"],
        _text(details, "queue"),
        _text(details, "vhost"),
        details["timeout"],
        details["age"],
        _WHAT_HAPPENS[str(details["action"])],
        extra=_peer(details),
    )


def _internal_error(details: Details) -> None:
    error = details["error"]
    assert isinstance(error, BaseException)
    CONNECTION.error("%s internal error", details["connection"], exc_info=error)


def _redeclared(details: Details) -> None:
    differences = details["differences"]
    assert isinstance(differences, list)
    QUEUE.warning(
        "declared with other arguments, %s: %s",
        "which it has from now on" if details["is_adopted"] else "and left as it is",
        "; ".join(printable(text) for text in differences),
    )


def _deduplication_short(details: Details) -> None:
    QUEUE.warning(
        "%s '%s' in vhost '%s': there is no memory to remember more than %d ids of messages:"
        " older duplicates are taken",
        details["kind"],
        _text(details, "name"),
        _text(details, "vhost"),
        details["remembered"],
    )


def _policy(details: Details) -> tuple[Policy, str]:
    """The policy, and its title."""
    policy = details["policy"]
    assert isinstance(policy, Policy)
    kind = "operator policy" if policy.is_operator else "policy"
    return policy, f"{kind} '{printable(policy.name)}' in vhost '{_text(details, 'vhost')}'"


def _policy_set(details: Details) -> None:
    policy, title = _policy(details)
    SERVER.info(
        "%s is set: %s with names that match '%s', priority %s",
        title,
        policy.apply_to,
        printable(policy.pattern),
        policy.priority,
    )
    ignored = details["ignored"]
    assert isinstance(ignored, list)
    if ignored:
        SERVER.warning("%s: keys without effect: %s", title, ", ".join(ignored))


def _policy_cleared(details: Details) -> None:
    SERVER.info("%s is cleared", _policy(details)[1])


def _queue_expired(details: Details) -> None:
    QUEUE.info(
        "queue '%s' in vhost '%s' was unused for its x-expires and is deleted",
        _text(details, "queue"),
        _text(details, "vhost"),
    )


def _dead_letter_cycle(details: Details) -> None:
    targets = details["targets"]
    assert isinstance(targets, dict)
    QUEUE.warning(
        "queue '%s': dead letters dropped that would go round and round: %s",
        _text(details, "queue"),
        ", ".join(f"{count} to '{printable(name)}'" for name, count in targets.items()),
    )


def _memory_short(details: Details) -> None:
    SERVER.warning(
        "memory: %s octets of messages are above the limit of %s: publishers are paused",
        details["used"],
        details["limit"],
    )


def _memory_free(details: Details) -> None:
    SERVER.warning("memory: %s octets of messages: publishers go on", details["used"])


def _disk_space(details: Details) -> None:
    if details["is_short"]:
        SERVER.warning(
            "disk: %s bytes are free, less than %s: publishers are paused",
            details["free"],
            details["least"],
        )
    else:
        SERVER.warning("disk: %s bytes are free: publishers go on", details["free"])


def _log_state(details: Details) -> None:
    state = details["state"]
    if state == "open":
        SERVER.warning("storage: there is room again: publishers go on")
    elif state == "full":
        SERVER.error("storage: %s: publishers are paused", details["reason"])
    else:
        SERVER.critical(
            "storage has failed: %s: nothing more is confirmed or kept until the broker is "
            "started again",
            details["reason"],
        )


def _scratch_state(details: Details) -> None:
    state = details["state"]
    if state == "open":
        SERVER.warning("scratch storage: there is room again: publishers go on")
    elif state == "full":
        SERVER.error("scratch storage: %s: publishers are paused", details["reason"])
    else:
        SERVER.error(
            "scratch storage has failed: %s: messages that do not last stay in memory",
            details["reason"],
        )


def _unreadable(details: Details) -> None:
    SERVER.error(
        "storage: %s: messages there cannot be delivered; reading is tried again every second",
        details["reason"],
    )


def _readable(details: Details) -> None:
    SERVER.warning("storage: what could not be read can be read again: consumers go on")


_WHAT_HAPPENS = {
    REQUEUE: "they are requeued",
    CANCEL_CONSUMER: "they are requeued and the consumer is cancelled",
    CLOSE_CHANNEL: "the channel is closed",
}
_WRITERS: dict[str, Callable[[Details], None]] = {
    "connection_opened": _connection_opened,
    "connection_closed": _connection_closed,
    "login_refused": _login_refused,
    "handshake_error": _handshake_error,
    "connection_error": _connection_error,
    "channel_error": _channel_error,
    "consumer_timeout": _consumer_timeout,
    "internal_error": _internal_error,
    "redeclared": _redeclared,
    "deduplication_short": _deduplication_short,
    "policy_set": _policy_set,
    "policy_cleared": _policy_cleared,
    "queue_expired": _queue_expired,
    "dead_letter_cycle": _dead_letter_cycle,
    "memory_short": _memory_short,
    "memory_free": _memory_free,
    "log_state": _log_state,
    "scratch_state": _scratch_state,
    "disk_space": _disk_space,
    "unreadable": _unreadable,
    "readable": _readable,
}
