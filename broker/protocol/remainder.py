"""Input that waits, in the pieces in which it came.

A frame that begins in one chunk and ends in another is joined once, when it is whole; the frames
of a large body not even then, but together with the others of their content.
"""

from __future__ import annotations

from typing import TypeAlias

Piece: TypeAlias = "bytes | bytearray | memoryview"

_SHARE = 4
"""A view keeps all of its chunk: one is taken of no less than this part of it."""
_SMALL = 4096
"""Pieces below this are copied into one: a list of single octets takes sixty times their size."""


def piece_of(chunk: bytes, start: int, stop: int) -> bytes | memoryview:
    """`chunk[start:stop]`, copied unless it is a good part of the chunk."""
    if (stop - start) * _SHARE >= len(chunk) and stop - start >= _SMALL:
        return memoryview(chunk)[start:stop]
    return chunk[start:stop]


class Remainder:
    """Pieces of input in order."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, chunk: bytes, start: int, stop: int) -> None:
        """Keeps `chunk[start:stop]`."""
        if start >= stop:
            return
        self._size += stop - start
        piece = piece_of(chunk, start, stop)
        pieces = self._pieces
        if len(piece) >= _SMALL:
            pieces.append(piece)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += piece
        else:
            pieces.append(bytearray(piece))

    def begin(self, count: int) -> bytes:
        """The first octets, `count` of them or all there are."""
        if not self._pieces or len(self._pieces[0]) >= count:
            return bytes(self._pieces[0][:count]) if self._pieces else b""
        return b"".join(self._pieces)[:count]

    def last(self) -> int:
        """The last octet."""
        return self._pieces[-1][-1]

    def take(self) -> bytes:
        """Everything, joined."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[Piece]:
        """Everything, as it is."""
        pieces, self._pieces = self._pieces, []
        self._size = 0
        return pieces

    def clear(self) -> None:
        """Drops everything."""
        self._pieces.clear()
        self._size = 0
