"""What a broker answered, so that two of them can be compared.

Only the order that a client may rely on counts: the answers on each channel in their order, the
deliveries of each consumer in theirs, what is confirmed in all. Delivery tags and the moment of a
delivery among answers are a matter of timing.
"""

from __future__ import annotations

from conformance.fuzz.mutate import frame_starts

DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
GET_OK = b"\x00\x3c\x00\x47"
ACK = b"\x00\x3c\x00\x50"
CANCEL = b"\x00\x3c\x00\x1e"

Answers = dict[tuple[int, bytes], list[bytes]]


def answers(octets: bytes) -> Answers:
    """The answers by channel and stream: a consumer's deliveries, confirms, returns, the rest."""
    found: Answers = {}
    stream: list[bytes] = []
    for at in frame_starts(octets):
        size = int.from_bytes(octets[at + 3 : at + 7], "big")
        channel = int.from_bytes(octets[at + 1 : at + 3], "big")
        payload = octets[at + 7 : at + 7 + size]
        if octets[at] != 1:
            stream.append(octets[at : at + 8 + size])
            continue
        index = payload[:4]
        key = b""
        if index == DELIVER:
            tag_end = 5 + payload[4]
            key = payload[:tag_end]
            payload = payload[:tag_end] + payload[tag_end + 8 :]
        elif index in (RETURN, ACK, CANCEL):
            key = index
        stream = found.setdefault((channel, key), [])
        if index == ACK:
            # Confirms may come in one frame or in several; the last number says it all.
            stream[:] = [payload[4:12]]
        elif index == GET_OK:
            stream.append(payload[:4] + payload[12:])
        else:
            stream.append(payload)
    return found


def differences(ours: bytes, theirs: bytes) -> str:
    """In words what differs; empty if nothing does."""
    if ours == theirs:
        return ""
    one, other = answers(ours), answers(theirs)
    for key in one.keys() | other.keys():
        left, right = one.get(key, []), other.get(key, [])
        if left == right:
            continue
        place = next(
            (i for i, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]),
            min(len(left), len(right)),
        )
        return (
            f"channel {key[0]}, stream {key[1]!r}: {len(left)} whole, {len(right)} cut; number "
            f"{place} is {left[place : place + 1]} whole and {right[place : place + 1]} cut"
        )
    return ""
