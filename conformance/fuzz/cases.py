"""What is fed in one case: steps of octets, from frames of a pool, some of them mutated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from conformance.fields import Typed
from conformance.fuzz import ordinary
from conformance.fuzz.frames import FrameMaker, nested_table
from conformance.fuzz.mutate import mutate
from conformance.fuzz.ordinary import CHANNELS
from conformance.fuzz.world import PROTOCOL_HEADER, method, open_vhost, start_ok, tune_ok
from conformance.methods import encode_frame

POOL = 64
"""Odd units of frames that the cases of one block choose from."""
ODD_SHARE = 0.12
STEPS_MAX = 8
DEEP_SHARE = 0.2
"""Sessions with several channels and many steps; the others open one channel for a few frames."""
BEFORE_LOGIN_SHARE = 0.12
TWO_CLIENTS_SHARE = 0.1
UNMUTATED_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Case:
    """The steps of one case: which client says it (0 or 1), and the octets.

    `cuts` holds for each step where its octets are cut when they are not fed whole.
    """

    is_before_login: bool
    steps: Sequence[tuple[int, bytes]]
    cuts: Sequence[Sequence[int]]

    @property
    def octets(self) -> bytes:
        """Everything that is fed."""
        return b"".join(octets for _, octets in self.steps)


class CaseMaker:
    """Makes the cases of one block; the same seed makes the same cases."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        frames = FrameMaker(self.random)
        self._odd = [
            *(frames.any_method() for _ in range(POOL * 5 // 8)),
            *(frames.publish() for _ in range(POOL // 4)),
            *(frames.settlement() for _ in range(POOL // 16)),
            *(frames.wild_frame() for _ in range(POOL // 16)),
        ]
        self._first = _first_words(self.random)

    def make(self) -> Case:
        """The next case."""
        random = self.random
        is_before_login = random.random() < BEFORE_LOGIN_SHARE
        steps = self._handshake() if is_before_login else self._session()
        if random.random() > UNMUTATED_SHARE:
            mutate(steps, random, self._odd)
        clients = (0, 0, 1) if random.random() < TWO_CLIENTS_SHARE else (0,)
        told = [(random.choice(clients), step) for step in steps]
        return Case(is_before_login, told, [self._cuts(len(step)) for step in steps])

    def _handshake(self) -> list[bytes]:
        random = self.random
        header, start, tune, opening = self._first
        steps = [random.choice(header), random.choice(start)]
        if random.random() < 0.6:
            steps += [random.choice(tune), random.choice(opening)]
        if random.random() < 0.3:
            steps += [ordinary.OPENS[0], random.choice(self._odd)]
        return steps

    def _session(self) -> list[bytes]:
        random = self.random
        is_deep = random.random() < DEEP_SHARE
        channels = CHANNELS if is_deep else CHANNELS[:1]
        steps = [self._opening(channels)]
        while len(steps) < STEPS_MAX and random.random() < (0.75 if is_deep else 0.4):
            step = b""
            if random.random() < 0.4:
                step = random.choice(ordinary.SETTLEMENTS[random.choice(channels)])
            for _ in range(1 + int(random.random() * 2.5)):
                step += self._unit(channels)
            steps.append(step)
        return steps

    def _opening(self, channels: Sequence[int]) -> bytes:
        """Channels are opened, mostly, and there is something to work with."""
        random = self.random
        chance = random.random()
        if chance < 0.05:
            return self._unit(channels)
        opens = b"".join(ordinary.OPENS[: len(channels)])
        if chance < 0.4:
            return opens + self._unit(channels)
        declarations = ordinary.DECLARATIONS[1]
        if chance > 0.97:
            declared = declarations
        else:
            declared = random.sample(declarations, 1 + int(random.random() * 2))
        return opens + b"".join(declared) + random.choice(ordinary.CONSUMERS[1])

    def _unit(self, channels: Sequence[int]) -> bytes:
        """A few frames: mostly ordinary, on a channel that is open."""
        random = self.random
        chance = random.random()
        if chance < ODD_SHARE:
            return random.choice(self._odd)
        channel = random.choice(channels)
        if chance < 0.6:
            return random.choice(ordinary.PUBLISHES[channel])
        if chance < 0.8:
            return random.choice(ordinary.REQUESTS[channel])
        if chance < 0.92:
            return random.choice(ordinary.CONSUMERS[channel])
        return random.choice(ordinary.DECLARATIONS[channel])

    def _cuts(self, size: int) -> Sequence[int]:
        """Where one step is cut: in a few places, or after every octet."""
        random = self.random
        chance = random.random()
        if size < 2 or chance < 0.1:
            return ()
        if chance > 0.98 and size <= 300:
            return range(1, size)
        return sorted(1 + int(random.random() * (size - 1)) for _ in range(1 + int(chance * 3)))


def _first_words(random: Random) -> tuple[Sequence[bytes], ...]:
    """What may be said in each state of a handshake, right and wrong."""
    headers = [
        *(PROTOCOL_HEADER,) * 12,
        *(b"AMQP\x01\x01\x00\x09", b"AMQP\x00\x00\x09\x02", b"AMQP", b"GET / HTTP/1.1\r\n\r\n"),
        *(b"\x16\x03\x01\x02\x00\x01", b"", b"\x00" * 8, random.randbytes(12)),
    ]
    deep = nested_table(random.choice((50, 100, 101, 1000)))
    starts = [
        *(start_ok(),) * 8,
        start_ok(password=b"wrong"),
        start_ok(user=b"nobody"),
        start_ok(password=b""),
        start_ok(client_properties={}, password=b"wrong"),
        start_ok(client_properties=deep),
        start_ok(mechanism="AMQPLAIN", response=b"\x05LOGINS\x00\x00\x00\x05guest"),
        start_ok(mechanism="AMQPLAIN", response=nested_table(300)),
        start_ok(mechanism="EXTERNAL"),
        start_ok(response=b"guest"),
        start_ok(client_properties={"capabilities": [1], "connection_name": 5}),
        start_ok(client_properties={"t": Typed("T", (1 << 64) - 1), "x": "y" * 7000}),
        start_ok(client_properties={"x": "y" * 9000}),
        encode_frame(8, 0, b"") * 3 + start_ok(),
        encode_frame(1, 0, b"\x00\x0a\x00\x0b") + random.randbytes(20),
        b"\x01\x00\x00\x7f\xff\xff\xff",
        tune_ok(),
        method(1, "channel.open"),
    ]
    tunes = [
        *(tune_ok(),) * 6,
        *(tune_ok(0, 0), tune_ok(1, 4096), tune_ok(65535), tune_ok(1, 1), start_ok()),
        tune_ok(frame_max=(1 << 32) - 1),
    ]
    opens = [
        *(open_vhost(),) * 6,
        *(open_vhost("nope\n"), open_vhost(""), tune_ok(), method(0, "connection.close")),
    ]
    return headers, starts, tunes, opens
