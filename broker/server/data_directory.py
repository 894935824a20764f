"""The data directory: the log of what lasts, and the scratch log of what is only paged out."""

from __future__ import annotations

import logging
from pathlib import Path

from broker.core.broker import Broker
from broker.core.journal import Journal
from broker.core.recovery import recover
from broker.storage.directory import remove_log
from broker.storage.log import Caller, LogError
from broker.storage.segment_log import SegmentLog

LOG = logging.getLogger("leveret.server")

SCRATCH = "scratch"
"""The directory of the scratch log within that of the other one. It is emptied at every start."""


def open_directory(broker: Broker, directory: Path, call: Caller) -> None:
    """Gives an empty broker what is in this directory, and lets it write there from now on.

    Raises LogError.
    """
    log = SegmentLog.open(directory, call)
    if log.discarded is not None:
        LOG.warning("an unfinished write at the end of the log is discarded: %s", log.discarded)
    remove_scratch(directory)
    recover(broker, log)


def open_scratch(directory: Path, call: Caller) -> Journal | None:
    """A new scratch log in a directory that this broker owns; None if there can be none, which is
    logged."""
    try:
        if (directory / SCRATCH).is_symlink():
            raise LogError(f"{directory / SCRATCH}: a symbolic link")
        log = SegmentLog.open(directory / SCRATCH, call, sync=False)
        return Journal(log, is_scratch=True)
    except LogError as error:
        LOG.error("messages that do not last stay in memory: %s", error)
        return None


def remove_scratch(directory: Path) -> None:
    """What was only paged out is not wanted any more. Removes nothing but a log's own files; what
    is left is logged."""
    try:
        remove_log(directory / SCRATCH)
    except OSError as error:
        LOG.warning("%s is left: %s", directory / SCRATCH, error.strerror)
