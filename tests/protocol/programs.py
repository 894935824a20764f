"""Random programs of several clients: played once frame by frame, then replayed cut otherwise.

An intent says roughly what a client does next; the player makes frames of it, by what the client
has read when its run begins (which deliveries are unsettled, which channel was closed). The frames
are recorded, so that a replay differs in nothing but where its chunks end.

Each channel consumes from one queue only: which of two queues delivers first to one channel is a
matter of timing, in RabbitMQ too.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from broker.wire.methods import Method
from broker.wire.table import Field
from tests.protocol.actions import (
    ACTIONS,
    ARGUMENTS,
    CHANNELS,
    CLIENTS,
    EXCHANGES,
    FRAME_SIZES,
    QUEUES,
    RUN_MS,
    WEIGHTS,
    Frames,
    Intent,
    one,
    queue_of,
    reopen,
)
from tests.protocol.client import Basic, Channel, Client, Exchange, Queue, Site


class Run(NamedTuple):
    """What one client does in one go."""

    client: int
    intents: list[Intent]


class Work(NamedTuple):
    """A consumer that is there from the start."""

    client: int
    channel: int
    kind: int
    prefetch: int


class Scene(NamedTuple):
    """How a program begins: who consumes what, and how much waits in each queue."""

    works: list[Work]
    backlog: list[int]


class Program(NamedTuple):
    """A scene, and what happens in it."""

    scene: Scene
    runs: list[Run]


class Player:
    """Plays a program frame by frame, and records it."""

    def __init__(self, program: Program) -> None:
        self.site, self.clients = make_site(program.scene)
        self.seen = [0] * CLIENTS
        self.unsettled: dict[tuple[int, int], list[int]] = {}
        self.no_ack: set[tuple[int, int, str]] = set()
        self.tags: dict[tuple[int, int], list[str]] = {}
        self.closed: set[tuple[int, int]] = set()
        self.consumers = 0
        self.record: list[tuple[int, list[bytes]]] = []
        self.look()
        for run in program.runs:
            frames: list[bytes] = []
            for intent in run.intents:
                if (run.client, intent.channel) in self.closed:
                    made = reopen(self, run.client, intent)
                else:
                    made = ACTIONS[intent.name](self, run.client, intent)
                for octets in made:
                    self.clients[run.client].feed(octets)
                frames += made
            self.record.append((run.client, frames))
            self.site.advance(RUN_MS)
            # A client cannot know what its octets lead to before it has sent them.
            self.look()

    def look(self) -> None:
        """Learns from what came."""
        for number, client in enumerate(self.clients):
            received = client.reader.received
            for item in received[self.seen[number] :]:
                place = number, item.channel
                method = item.method
                if item.kind is Channel.Close:
                    self.closed.add(place)
                elif item.kind is Basic.ConsumeOk:
                    self.tags.setdefault(place, []).append(method.consumer_tag)
                elif item.kind is Basic.GetOk or (
                    item.kind is Basic.Deliver and (*place, method.consumer_tag) not in self.no_ack
                ):
                    self.unsettled.setdefault(place, []).append(method.delivery_tag)
            self.seen[number] = len(received)

    def forget(self, client: int, channel: int) -> None:
        self.closed.discard((client, channel))
        self.unsettled.pop((client, channel), None)
        self.tags.pop((client, channel), None)

    def tag(self, client: int, intent: Intent, *, up_to: bool) -> int | None:
        """A delivery tag to settle: nearly always one that is unsettled; None to do nothing."""
        known = self.unsettled.get((client, intent.channel), [])
        if (intent.b, intent.c) == (7, 7):
            return 9999
        if not known:
            return None
        # The oldest one most of the time, as clients do.
        place = 0 if intent.a < 4 else intent.b % len(known)
        tag = known[place]
        del known[0 if up_to else place : place + 1]
        return tag

    def settle(self, client: int, kind: type[Method], intent: Intent, **arguments: bool) -> Frames:
        tag = self.tag(client, intent, up_to=arguments.get("multiple", False))
        return [] if tag is None else one(kind, intent, delivery_tag=tag, **arguments)


def make_site(scene: Scene) -> tuple[Site, list[Client]]:
    site = Site()
    clients = [site.connect(frame_max=size, channels=CHANNELS) for size in FRAME_SIZES[:CLIENTS]]
    for name in QUEUES:
        clients[0].queue(name, arguments=ARGUMENTS.get(name, {}))
    for name, kind in EXCHANGES:
        clients[0].ask(Exchange.Declare, exchange=name, exchange_type=kind)
        clients[0].ask(Queue.Bind, queue="q0", exchange=name, routing_key="#")
    for number, work in enumerate(scene.works):
        client = clients[work.client]
        client.ask(
            Basic.Qos,
            work.channel,
            prefetch_count=work.prefetch,
            global_=work.kind == 2,
        )
        client.tell(
            Basic.Consume,
            work.channel,
            queue=queue_of(work.client, work.channel),
            consumer_tag=f"w{number}",
            arguments={"x-priority": Field("byte", int(work.kind == 1))},
        )
    for name, count in zip(QUEUES, scene.backlog, strict=True):
        for number in range(count):
            clients[0].publish(b"%d" % number, key=name)
    return site, clients


details = st.integers(0, 7)
intents = st.builds(
    Intent,
    st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)]),
    st.integers(1, CHANNELS),
    details,
    details,
    details,
)
works = st.builds(
    Work,
    st.integers(0, CLIENTS - 1),
    st.integers(1, CHANNELS),
    st.integers(0, 2),
    st.integers(0, 3),
)
scenes = st.builds(
    Scene,
    st.lists(works, max_size=6),
    st.lists(st.integers(0, 12), min_size=len(QUEUES), max_size=len(QUEUES)),
)
runs = st.builds(Run, st.integers(0, CLIENTS - 1), st.lists(intents, min_size=1, max_size=10))
programs = st.builds(Program, scenes, st.lists(runs, min_size=1, max_size=10))
