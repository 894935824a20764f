"""Runs cases in blocks and finds what fails; a block and a number name a case for ever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from broker.core.broker import Limits
from broker.protocol.batch import ACK_FRAME_SIZE
from conformance.fuzz.answers import differences
from conformance.fuzz.cases import Case, CaseMaker
from conformance.fuzz.invariants import (
    InvariantError,
    check_errors,
    check_held,
    check_left,
    check_queues,
    require,
    state,
)
from conformance.fuzz.world import Peer, World, method
from conformance.methods import encode_frame, encode_header

BLOCK = 250
"""Cases that share two brokers; then these are checked as a whole, and new ones are made."""
CHANNEL_MAX = 5
PRESSED_EVERY = 8
"""One block in so many is run with little memory, by clients that do not always read."""
MEMORY_PRESSED = 20_000
STEADY = "steady"
SHOWN = 100
"""Octets of a step that a report shows."""
_CONSUME = b"\x00\x3c\x00\x14"
_UNKNOWN_TAG = b"unknown delivery tag"
_SETTLEMENTS = (b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x5a", b"\x00\x3c\x00\x78")


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that failed, by its place, and how."""

    seed: int
    block: int
    number: int
    text: str
    case: Case

    def __str__(self) -> str:
        steps = "\n".join(
            f"    {client}: {octets[:SHOWN].hex()}{'...' * (len(octets) > SHOWN)}"
            for client, octets in self.case.steps
        )
        return (
            f"seed {self.seed}, case {self.block}:{self.number}: {self.text}\n{steps}\n"
            f"  again: python -m conformance.fuzz --seed {self.seed} "
            f"--case {self.block}:{self.number}"
        )


@dataclass(slots=True)
class Totals:
    """What a campaign did."""

    cases: int = 0
    compared: int = 0
    octets: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, more: Totals) -> None:
        """Counts these too."""
        self.cases += more.cases
        self.compared += more.compared
        self.octets += more.octets
        self.failures += more.failures


class OutrunError(Exception):
    """An ack was sent before its delivery could have been read: whether its tag is known depends
    on where the chunk ends. The two brokers have different histories from here on."""


class Pair:
    """Two brokers with one history, each with a well-behaved client: `whole` is fed in whole
    chunks, `cut` the same octets in pieces. Under pressure (little memory, clients that do not
    read) both are fed in the same pieces, since who is stopped where is a matter of timing."""

    def __init__(self, *, is_pressed: bool = False) -> None:
        self.is_pressed = is_pressed
        memory = MEMORY_PRESSED if is_pressed else 0
        limits = Limits(message_size_max=1 << 20, channel_max=CHANNEL_MAX, memory=memory)
        self.whole, self.cut = World(limits), World(limits)
        self.steady = [_steady_client(world) for world in (self.whole, self.cut)]

    def run(self, case: Case) -> bool:
        """Feeds one case; whether the two could be compared. Raises InvariantError, and
        OutrunError."""
        compares = not self.is_pressed and is_comparable(case)
        clients = sorted({client for client, _ in case.steps})
        for world in (self.whole, self.cut):
            world.restart_names()
        whole = self._connect(self.whole, case, clients)
        cut = self._connect(self.cut, case, clients)
        for number, ((client, octets), cuts) in enumerate(zip(case.steps, case.cuts, strict=True)):
            for peer, places in ((whole[client], () if compares else cuts), (cut[client], cuts)):
                if self.is_pressed:
                    press(peer, reads=number % 3 != 1)
                feed(peer, octets, places)
        told = [(whole[client].take(), cut[client].take()) for client in clients]
        for peers in (whole, cut):
            for peer in peers.values():
                peer.leave()
        for ours, theirs in told:
            found = differences(ours, theirs)
            if found and (_UNKNOWN_TAG in ours) != (_UNKNOWN_TAG in theirs) and may_outrun(case):
                raise OutrunError
            require(not found, f"answers differ: {found}")
        check_left(self.whole, self.steady[0].connection)
        check_left(self.cut, self.steady[1].connection)
        require(
            self.whole.broker.memory_used == self.cut.broker.memory_used
            and len(self.whole.vhost.queues) == len(self.cut.vhost.queues)
            and len(self.whole.vhost.exchanges) == len(self.cut.vhost.exchanges),
            "the brokers hold something different",
        )
        return compares

    def _connect(self, world: World, case: Case, clients: Sequence[int]) -> dict[int, Peer]:
        if case.is_before_login:
            return {client: world.connect() for client in clients}
        return {client: world.logged_in(CHANNEL_MAX) for client in clients}

    def check(self) -> None:
        """The brokers as a whole, and whether they still serve. Raises InvariantError."""
        for world, peer in zip((self.whole, self.cut), self.steady, strict=True):
            check_queues(world)
            if self.is_pressed:
                purge(world)
            check_served(peer)
        require(state(self.whole) == state(self.cut), "the brokers are in different states")


def press(peer: Peer, *, reads: bool) -> None:
    """Lets a client read, or not."""
    if not reads:
        peer.stop_reading()
    elif peer.connection.output.is_congested:
        peer.go_on_reading()


def purge(world: World) -> None:
    """Makes room: a client that does not publish may always do that."""
    peer = world.logged_in()
    peer.feed(method(1, "channel.open"))
    for name, queue in list(world.vhost.queues.items()):
        if queue.owner is None:
            peer.feed(method(1, "queue.purge", queue=name))
    require(peer.is_open, "a client that does not publish was closed")
    require(not world.broker.check_memory(), "memory is short though all queues are empty")
    peer.leave()


def feed(peer: Peer, octets: bytes, cuts: Sequence[int]) -> None:
    """Feeds octets in pieces, and looks at what the connection keeps."""
    start = 0
    for cut in (*cuts, len(octets)):
        # What the broker does not read stays in the client's socket.
        if peer.is_read:
            peer.feed(octets[start:cut])
        start = cut
    check_held(peer.connection)


def may_outrun(case: Case) -> bool:
    """Whether an ack may make room for a delivery that another one in the same chunk is for."""
    return any(
        step.startswith(_SETTLEMENTS, 7) and step.startswith(_SETTLEMENTS, ACK_FRAME_SIZE + 7)
        for _, step in case.steps
    )


def is_comparable(case: Case) -> bool:
    """Whether the answers are the same however the case is cut.

    An ack that comes in one chunk with what it is for was sent before the delivery could have
    been read: whether its tag is known then is a matter of timing, also when the delivery is one
    of a message that was just given back. So is which of two consumers on a channel gets which tag.
    """
    settles = False
    for _, step in case.steps:
        at = 0
        gives_back = False
        while not gives_back and step.startswith(_SETTLEMENTS, at + 7) and step[at] == 1:
            gives_back = not step.startswith(_SETTLEMENTS[0], at + 7)
            at += 8 + int.from_bytes(step[at + 3 : at + 7], "big")
        settles = settles or at > 0
        if any(step.find(index, at) >= 0 for index in _SETTLEMENTS):
            return False
    return not settles or case.octets.count(_CONSUME) < 2


def _steady_client(world: World) -> Peer:
    peer = world.logged_in()
    peer.feed(
        method(1, "channel.open")
        + method(1, "queue.declare", queue=STEADY, exclusive=True)
        + method(1, "confirm.select")
        + method(1, "basic.consume", queue=STEADY, consumer_tag=STEADY)
    )
    check_served(peer)
    return peer


def check_served(peer: Peer) -> None:
    """Whether a well-behaved client gets what it publishes. Raises InvariantError."""
    peer.take()
    body = b"still here"
    peer.feed(
        method(1, "basic.publish", routing_key=STEADY, mandatory=True)
        + encode_frame(2, 1, encode_header(len(body)))
        + encode_frame(3, 1, body)
    )
    octets = peer.take()
    check_errors(peer.world)
    require(octets.count(body) == 1, f"the message did not come: {octets!r}")
    require(b"\x00\x3c\x00\x50" in octets, "the publish was not confirmed")
    peer.feed(method(1, "basic.ack", delivery_tag=0, multiple=True))
    require(peer.is_open and not peer.take(), "the ack was refused")


def run_block(seed: int, block: int, totals: Totals, last: int = BLOCK - 1) -> Iterator[Failure]:
    """Runs the cases of one block up to `last`; goes on with new brokers after a failure."""
    maker = CaseMaker(f"{seed}:{block}")
    is_pressed = block % PRESSED_EVERY == PRESSED_EVERY - 1
    pair = Pair(is_pressed=is_pressed)
    case = Case(False, (), ())
    for number in range(last + 1):
        case = maker.make()
        totals.cases += 1
        totals.octets += sum(len(octets) for _, octets in case.steps)
        try:
            totals.compared += pair.run(case)
        except OutrunError:
            pair = Pair(is_pressed=is_pressed)
        except InvariantError as error:
            yield Failure(seed, block, number, str(error), case)
            pair = Pair(is_pressed=is_pressed)
    try:
        pair.check()
    except InvariantError as error:
        yield Failure(seed, block, last, f"after the block: {error}", case)


def whole_block(seed: int, block: int) -> Totals:
    """Runs one block to its end."""
    totals = Totals()
    totals.failures += run_block(seed, block, totals)
    return totals
