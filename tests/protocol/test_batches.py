"""A batch cannot be told from single steps: whatever the clients do, it does not matter where the
chunks of their octets end.

Worth the long form that tests/wire/profiles.py tells of, after changes to the hot path.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.actions import CLIENTS, QUEUES, RUN_MS
from tests.protocol.client import Basic, Channel, Client, Site
from tests.protocol.programs import Player, Program, Scene, make_site, programs
from tests.protocol.snapshot import broker_values, difference
from tests.wire.profiles import examples

Cut = Callable[[list[bytes]], Iterator[bytes]]


def whole(frames: list[bytes]) -> Iterator[bytes]:
    yield b"".join(frames)


def octet_by_octet(frames: list[bytes]) -> Iterator[bytes]:
    for octet in b"".join(frames):
        yield bytes([octet])


def in_pieces(random: Any) -> Cut:
    def cut(frames: list[bytes]) -> Iterator[bytes]:
        octets = b"".join(frames)
        at = 0
        while at < len(octets):
            size = random.choice([1, 7, 8, 30, 200, 5000])
            yield octets[at : at + size]
            at += size

    return cut


def replay(scene: Scene, player: Player, cut: Cut) -> tuple[Site, list[Client]]:
    site, clients = make_site(scene)
    for number, frames in player.record:
        for chunk in cut(frames):
            clients[number].feed(chunk)
        site.advance(RUN_MS)
    return site, clients


def ask_for_turns(site: Site) -> None:
    """Shows whose turn it is on every queue, and what is still in them."""
    publisher = site.connect()
    for name in QUEUES:
        for number in range(5):
            publisher.publish(b"turn %d" % number, key=name)


def seen_by(client: Client) -> dict[int, Any]:
    """What a client got on each channel, with every confirm on its own, in a row of its own."""
    seen: dict[int, Any] = defaultdict(lambda: ([], []))
    confirmed: dict[int, int] = defaultdict(int)
    for item in client.reader.received:
        others, confirms = seen[item.channel]
        method = item.method
        if item.kind is Basic.Ack:
            first = confirmed[item.channel] + 1
            assert method.delivery_tag >= first
            assert method.multiple == (method.delivery_tag > first)
            confirms += range(first, method.delivery_tag + 1)
            confirmed[item.channel] = method.delivery_tag
            continue
        if item.kind is Channel.OpenOk:
            confirmed[item.channel] = 0
        values = {name: getattr(method, name) for name in type(method).__slots__}
        others.append((method.name, values, item.header, item.body))
    return dict(seen)


def outcome(site: Site, clients: list[Client]) -> tuple[Any, Any]:
    values = broker_values(site.broker)
    ask_for_turns(site)
    return [seen_by(client) for client in clients[:CLIENTS]], values


def check(program: Program, *cuts: Cut) -> None:
    player = Player(program)
    wanted = outcome(player.site, player.clients)
    for cut in cuts:
        found = outcome(*replay(program.scene, player, cut))
        assert difference(found, wanted) == ""


@examples(80)
@given(programs, st.randoms(use_true_random=False))
def test_where_chunks_end_makes_no_difference(program: Program, random: Any) -> None:
    check(program, whole, in_pieces(random))


@examples(10)
@given(programs)
def test_single_octets_make_no_difference(program: Program) -> None:
    check(program, octet_by_octet)
