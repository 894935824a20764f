"""Brokers that have little memory, or no disk space left, and how their alarms are raised."""

from __future__ import annotations

import os
import subprocess
from typing import Protocol

from conformance.client import Address, Connection
from conformance.crash.processes import KillableBroker
from conformance.registry import Limit

MEMORY_BYTES = 4_000_000
"""Octets that messages may take on a broker that has little memory."""
_FIELDS: dict[Limit | None, dict[str, str]] = {
    None: {"memory": "40%", "disk_free": "50MB"},  # the defaults of RabbitMQ and of Leveret
    Limit.MEMORY: {"memory": f"{MEMORY_BYTES // 1_000_000}MB", "disk_free": "50MB"},
    Limit.DISK: {"memory": "40%", "disk_free": "1000TB"},
}
_RABBITMQCTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"


def command_for(command: str | None, limit: Limit | None) -> str | None:
    """A command with {memory} and {disk_free} replaced by what this limit wants, or by what is
    usual without one; its other fields stay."""
    for name, value in _FIELDS[limit].items():
        command = command and command.replace(f"{{{name}}}", value)
    return command


def can_limit(command: str | None) -> bool:
    """Whether limits can be set: of Debian's RabbitMQ (None), or by fields of the command."""
    return command is None or all(f"{{{name}}}" in command for name in _FIELDS[None])


class OwnBroker(KillableBroker):
    """A broker that this run started; if it is RabbitMQ, with its command line tool."""

    def control(self, *words: str) -> None:
        """Runs rabbitmqctl with these words on this node; raises RuntimeError if that fails."""
        done = subprocess.run(
            [_RABBITMQCTL, "--node", self._node, *words],
            env={**os.environ, "HOME": str(self._folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")


class Alarms(Protocol):
    """How a broker is made to run short of something."""

    def raise_alarm(self, what: Limit) -> None:
        """Returns when publishers have to wait."""

    def clear(self) -> None:
        """Ends every alarm that was raised, if there is one."""


class FilledMemory:
    """Alarms of a broker that was started with a limit: its memory is filled by a transaction
    that holds more than the budget; a disk that is short was so from the start, and stays so."""

    def __init__(self, address: Address, limit: Limit) -> None:
        self._address = address
        self._limit = limit
        self._filler: Connection | None = None

    def raise_alarm(self, what: Limit) -> None:
        """Returns when publishers have to wait; ValueError for another limit's alarm."""
        if what is not self._limit:
            raise ValueError(f"this broker cannot be made to run short of {what}")
        if what is Limit.DISK:
            return
        self._filler = Connection(self._address).open()
        channel = self._filler.channel()
        channel.call("tx.select")
        # Routed nowhere, so that nothing is left of it whatever comes.
        channel.publish(bytes(MEMORY_BYTES), routing_key="conformance.filler")
        channel.call("channel.flow", active=True)

    def clear(self) -> None:
        """Ends the alarm for memory; the disk's stays."""
        filler, self._filler = self._filler, None
        if filler is not None:
            filler.close()


class NodeLimits:
    """Alarms of a private RabbitMQ, by setting its limits while it runs."""

    def __init__(self, node: OwnBroker) -> None:
        self._node = node
        self._raised: set[Limit] = set()

    def raise_alarm(self, what: Limit) -> None:
        """Returns when publishers have to wait."""
        self._raised.add(what)
        if what is Limit.MEMORY:
            self._node.control("set_vm_memory_high_watermark", "absolute", "1MB")
        else:
            self._node.control("set_disk_free_limit", "1000000GB")

    def clear(self) -> None:
        """Ends the alarms that were raised."""
        if Limit.MEMORY in self._raised:
            self._node.control("set_vm_memory_high_watermark", "0.4")
        if Limit.DISK in self._raised:
            self._node.control("set_disk_free_limit", "50MB")
        self._raised.clear()
