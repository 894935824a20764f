"""What each method needs to be allowed, and what it is told without."""

from typing import Any

import pytest

from broker.core.users import Permission
from broker.wire.methods import Method
from broker.wire.properties import header_frame
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Exchange,
    Queue,
    Site,
    is_close,
    octets_of,
    text,
)

Needs = list[tuple[str, str, str]]
ENDS: Needs = [("write", "exchange", "x"), ("read", "exchange", "y")]
BOUND: Needs = [("write", "queue", "q"), ("read", "exchange", "x")]
NEEDED: list[tuple[type[Method], dict[str, Any], Needs]] = [
    (
        Exchange.Declare,
        {"exchange": "new", "exchange_type": "direct"},
        [("configure", "exchange", "new")],
    ),
    (
        Exchange.Declare,
        {
            "exchange": "new",
            "exchange_type": "direct",
            "arguments": {"alternate-exchange": text("x")},
        },
        [("configure", "exchange", "new"), ("read", "exchange", "new"), ("write", "exchange", "x")],
    ),
    (Exchange.Delete, {"exchange": "x"}, [("configure", "exchange", "x")]),
    (Exchange.Delete, {"exchange": "nope"}, [("configure", "exchange", "nope")]),
    (Exchange.Bind, {"destination": "x", "source": "y"}, ENDS),
    (Exchange.Unbind, {"destination": "x", "source": "y"}, ENDS),
    (Queue.Declare, {"queue": "new"}, [("configure", "queue", "new")]),
    (Queue.Declare, {"queue": "q"}, [("configure", "queue", "q")]),
    (
        Queue.Declare,
        {"queue": "new", "arguments": {"x-dead-letter-exchange": text("x")}},
        [("configure", "queue", "new"), ("read", "queue", "new"), ("write", "exchange", "x")],
    ),
    (Queue.Delete, {"queue": "q"}, [("configure", "queue", "q")]),
    (Queue.Delete, {"queue": "nope"}, [("configure", "queue", "nope")]),
    (Queue.Bind, {"queue": "q", "exchange": "x"}, BOUND),
    (Queue.Unbind, {"queue": "q", "exchange": "x"}, BOUND),
    (Queue.Purge, {"queue": "q"}, [("read", "queue", "q")]),
    (Basic.Get, {"queue": "q"}, [("read", "queue", "q")]),
    (Basic.Consume, {"queue": "q"}, [("read", "queue", "q")]),
    (Basic.Publish, {"exchange": "x"}, [("write", "exchange", "x")]),
    (Basic.Publish, {"exchange": "", "routing_key": "q"}, [("write", "exchange", "amq.default")]),
]
OPERATIONS = ("configure", "write", "read")


def allowing(needs: Needs) -> Permission:
    """Just these permissions."""
    names = {
        operation: "|".join(f"^{name}$" for wanted, _, name in needs if wanted == operation) or "^$"
        for operation in OPERATIONS
    }
    return Permission(**names)


def client_with(site: Site, permission: Permission) -> Client:
    admin = site.connect()
    admin.queue()
    for name in "xy":
        admin.ask(Exchange.Declare, exchange=name, exchange_type="fanout")
    site.broker.add_user("u", b"p", permissions={"/": permission})
    return site.connect(user="u", password="p")


def send(client: Client, kind: type[Method], arguments: dict[str, Any]) -> list[Any]:
    content = header_frame(1, 0, 0, b"") if kind is Basic.Publish else b""
    client.feed(octets_of(kind, **arguments) + content)
    return [item.method for item in client.read()]


@pytest.mark.parametrize(("kind", "arguments", "needs"), NEEDED)
def test_what_a_method_needs_is_enough(
    site: Site, kind: type[Method], arguments: dict[str, Any], needs: Needs
) -> None:
    client = client_with(site, allowing(needs))
    answers = send(client, kind, arguments)
    assert not [answer for answer in answers if isinstance(answer, Channel.Close)]


@pytest.mark.parametrize(
    ("kind", "arguments", "needs", "lacking"),
    [(*row, lacking) for row in NEEDED for lacking in row[2]],
)
def test_without_any_one_of_them_it_is_refused(
    site: Site,
    kind: type[Method],
    arguments: dict[str, Any],
    needs: Needs,
    lacking: tuple[str, str, str],
) -> None:
    # All but this one, and everything of the other operations.
    operation, what, name = lacking
    own = "|".join(f"^{n}$" for o, _, n in needs if o == operation and n != name) or "^$"
    client = client_with(site, Permission(**{operation: own}))
    (answer,) = send(client, kind, arguments)
    wanted = f"{operation} access to {what} '{name}' in vhost '/' refused for user 'u'"
    assert is_close(answer, 403, wanted, kind)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(Queue.Declare, {"queue": "q"}), (Exchange.Declare, {"exchange": "x"})],
)
def test_any_permission_is_enough_to_look(
    site: Site, operation: str, kind: type[Method], arguments: dict[str, Any]
) -> None:
    name = next(iter(arguments.values()))
    client = client_with(site, allowing([(operation, "", name)]))
    (answer,) = send(client, kind, {"passive": True, **arguments})
    assert isinstance(answer, Queue.DeclareOk | Exchange.DeclareOk)


@pytest.mark.parametrize(
    ("kind", "what"), [(Queue.Declare, "queue"), (Exchange.Declare, "exchange")]
)
def test_names_cannot_be_probed_without_any(site: Site, kind: type[Method], what: str) -> None:
    client = client_with(site, allowing([]))
    for number, name in enumerate(["q" if what == "queue" else "x", "nope"]):
        channel = number + 2
        client.ask(Channel.Open, channel)
        answer = client.ask(kind, channel, passive=True, **{what: name})
        wanted = f"configure access to {what} '{name}' in vhost '/' refused for user 'u'"
        assert is_close(answer, 403, wanted, kind)


def test_server_named_queue_needs_permission_too(site: Site) -> None:
    client = client_with(site, Permission(configure="^own-"))
    (answer,) = send(client, Queue.Declare, {})
    assert answer.reply_code == 403
    assert "configure access to queue 'amq.gen-" in answer.reply_text


def test_methods_that_touch_nothing_need_nothing(site: Site) -> None:
    client = client_with(site, allowing([]))
    for kind, arguments in (
        (Basic.Qos, {"prefetch_count": 1}),
        (Basic.Cancel, {"consumer_tag": "ct"}),
        (Basic.Recover, {"requeue": True}),
        (Channel.Flow, {"active": True}),
    ):
        (answer,) = send(client, kind, arguments)
        assert not isinstance(answer, Channel.Close)


def test_refusal_comes_before_it_is_told_what_is_there(site: Site) -> None:
    client = client_with(site, allowing([]))
    for channel, (kind, arguments) in enumerate(
        [
            (Basic.Get, {"queue": "nope"}),
            (Basic.Consume, {"queue": "nope"}),
            (Queue.Purge, {"queue": "nope"}),
            (Queue.Delete, {"queue": "nope"}),
            (Queue.Bind, {"queue": "nope", "exchange": "nope"}),
            (Exchange.Bind, {"source": "nope", "destination": "nope"}),
        ],
        start=2,
    ):
        client.ask(Channel.Open, channel)
        answer = client.ask(kind, channel, **arguments)
        assert answer.reply_code == 403
