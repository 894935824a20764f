"""Where data directories live: a folder, or a disk whose power can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

IMAGE_BYTES = 1 << 30
_BLOCK = 1 << 20
_COPY_ATTEMPTS = 50
_UNMOUNT_S = 20.0


class Ground(Protocol):
    """A place for one data directory. `after_kill` makes it what a start after the end finds."""

    @property
    def data(self) -> Path:
        """The data directory; the same path for ever."""

    @property
    def kind(self) -> str:
        """What it is, in words."""

    def after_kill(self) -> None:
        """The broker was killed: takes away what the kind of end takes."""

    def flush(self) -> None:
        """Makes everything durable that was written."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Folder:
    """A folder: what the broker wrote is there after a kill, whether it was flushed or not."""

    kind = "a folder"

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="crash-"))
        # RabbitMQ and its scripts may run as another user.
        self._root.chmod(0o777)
        self.data = self._root / "data"

    def after_kill(self) -> None:
        """Nothing is lost."""

    def flush(self) -> None:
        """Nothing to do: no end takes anything away."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


class Disk:
    """An ext4 file system in an image file: after a kill only what had reached the image is there.

    The image is copied while it is still mounted and nobody syncs it: pages that wait in memory are
    not in the copy, as after a power cut. What the file system handed to its device and did
    not flush is in it: a disk whose own cache is lost takes more than this.
    Needs root, losetup, mount and mkfs.ext4: OSError or subprocess.CalledProcessError otherwise.
    """

    kind = "ext4 in an image"

    def __init__(self, octets: int = IMAGE_BYTES) -> None:
        _check_may_mount()
        self._octets = octets
        self._root = Path(tempfile.mkdtemp(prefix="crash-disk-"))
        self._image = self._root / "disk.img"
        self._mounted = self._root / "mounted"
        self._mounted.mkdir()
        self._root.chmod(0o777)
        self._loop = ""
        self.data = self._mounted / "data"

    def __enter__(self) -> Self:
        try:
            with self._image.open("wb") as image:
                image.truncate(self._octets)
            # No blocks kept back for root: what is free is free for the broker.
            _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
            self._mount()
            self._mounted.chmod(0o777)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._loop:
            self._unmount()
        shutil.rmtree(self._root, ignore_errors=True)

    def after_kill(self) -> None:
        """Cuts the power: the copy takes the place of the disk."""
        copy = self._root / "copy.img"
        for _ in range(_COPY_ATTEMPTS):
            before = self._writes()
            _copy_sparse(self._image, copy)
            # Writeback in the middle of copying would mix two states of the disk.
            if self._writes() == before and before[1] == "0":
                break
        else:
            raise OSError("the disk is never quiet enough to be copied")
        self._unmount()
        copy.replace(self._image)
        self._mount()

    def flush(self) -> None:
        """syncfs, by way of sync(1)."""
        _run("sync", "--file-system", str(self._mounted))

    def _mount(self) -> None:
        self._loop = _run("losetup", "--find", "--show", str(self._image)).strip()
        _run("mount", self._loop, str(self._mounted))

    def _unmount(self) -> None:
        if self._mounted.is_mount():
            _unmount(self._mounted)
        loop, self._loop = self._loop, ""
        _run("losetup", "--detach", loop)

    def _writes(self) -> tuple[str, str]:
        """(writes that the device has completed, requests under way)."""
        fields = Path(f"/sys/block/{Path(self._loop).name}/stat").read_text().split()
        return fields[4], fields[8]


class MemoryDisk:
    """A tmpfs of so many octets: it can be full as any other, and forgets nothing in a kill.

    Needs root and mount: OSError or subprocess.CalledProcessError otherwise.
    """

    kind = "tmpfs"

    def __init__(self, octets: int) -> None:
        _check_may_mount()
        self._octets = octets
        self._root = Path(tempfile.mkdtemp(prefix="crash-tmpfs-"))
        self.data = self._root / "data"

    def __enter__(self) -> Self:
        try:
            _run("mount", "-t", "tmpfs", "-o", f"size={self._octets}", "crash", str(self._root))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._root.is_mount():
            _unmount(self._root)
        shutil.rmtree(self._root, ignore_errors=True)

    def after_kill(self) -> None:
        """Nothing is lost."""

    def flush(self) -> None:
        """Nothing to do: no end takes anything away."""


def _check_may_mount() -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise PermissionError("mounting needs root")


def _unmount(mounted: Path) -> None:
    deadline = time.monotonic() + _UNMOUNT_S
    while subprocess.run(["umount", mounted], check=False, capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise OSError(f"{mounted} cannot be unmounted")
        time.sleep(0.05)


def _copy_sparse(source: Path, target: Path) -> None:
    zeros = bytes(_BLOCK)
    with source.open("rb") as octets, target.open("wb") as copy:
        while block := octets.read(_BLOCK):
            if block == zeros:
                copy.seek(len(block), os.SEEK_CUR)
            else:
                copy.write(block)
        copy.truncate(source.stat().st_size)


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
