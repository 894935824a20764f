"""The way of one message through the exchanges of a virtual host.

Nothing of a message is decoded that no exchange on its way asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence
from typing import TYPE_CHECKING

from broker.core.delay import delay_of
from broker.core.exchange import Destination, Exchange
from broker.wire import properties
from broker.wire.table import Field, plain, read_fields
from exchanges import KeyFrom, KeySource

if TYPE_CHECKING:
    from broker.core.deduplication.duplicates import Judged
    from broker.core.queue import Queue
    from broker.core.vhost import VHost

_TEXTS = {
    "correlation_id": properties.CORRELATION_ID,
    "message_id": properties.MESSAGE_ID,
}
_RANDOM_OCTETS = 8
_NO_STORE = "x-recent-history-no-store"


class Passage:
    """A message that is being routed: its routing keys, and what its header frame says. Without
    one (`header` is empty) it has neither headers nor properties. `steps` is how many it took, as
    they will be for others like it. One that `has_waited` is not delayed again. Behind the first
    exchange, `judged` says who knows duplicates of it; None where nobody is to judge."""

    __slots__ = (
        "_header",
        "_random_bytes",
        "has_waited",
        "judged",
        "keys",
        "steps",
    )

    def __init__(
        self,
        keys: Sequence[str],
        header: bytes,
        random_bytes: Callable[[int], bytes],
        *,
        has_waited: bool = False,
    ) -> None:
        self.keys = keys
        self.has_waited = has_waited
        self.judged: Judged | None = None
        self.steps = 0
        self._header = header
        self._random_bytes = random_bytes

    def values(self, names: Container[str]) -> dict[str, object]:
        """Those of its headers that have these names, as `exchanges` compares them with the
        arguments of bindings."""
        if not self._header:
            return {}
        table = read_fields(properties.table_octets(self._header), names)
        return {name: plain(field) for name, field in table.items()}

    def _field(self, name: str) -> Field | None:
        return properties.header_field(self._header, name) if self._header else None

    @property
    def is_kept(self) -> bool:
        """Whether an exchange may keep it for who is bound later."""
        if _NO_STORE.encode() not in self._header:
            return True
        field = self._field(_NO_STORE)
        return field is None or field.type != "bool" or field.value is not True

    def is_delayed(self, now: int) -> bool:
        """Whether it has to wait at an exchange that delays messages."""
        return delay_of(self._header, now) > 0

    def key_from(self, source: KeySource) -> str:
        """The key that an exchange asks for which takes only one."""
        if source.kind is KeyFrom.ROUTING_KEY:
            return self.keys[0]
        if source.kind is KeyFrom.RANDOM:
            return self._random_bytes(_RANDOM_OCTETS).hex()
        if source.kind is KeyFrom.HEADER:
            return self._header_text(source.name)
        return self._property_text(source.name)

    def _header_text(self, name: str) -> str:
        field = self._field(name)
        if field is None or field.value is None:
            return ""
        if isinstance(field.value, str):
            return field.value
        # An integer is the same whatever its width.
        return repr(plain(field))

    def _property_text(self, name: str) -> str:
        if not self._header:
            return ""
        if name == "timestamp":
            seconds = properties.timestamp_property(self._header)
            return "" if seconds is None else str(seconds)
        return properties.text_property(self._header, _TEXTS[name]) or ""


def find_queues(vhost: VHost, exchange: Exchange, message: Passage) -> tuple[list[Queue], bool]:
    """The queues a message goes to, each once: through exchange-to-exchange bindings (each
    exchange once, so that cycles end) and alternate exchanges. And whether this holds for
    every message with these keys, whatever else it says. Where it waits instead (`Delayed`) is
    among them; what only keeps it for others (`History`) comes last."""
    queues: dict[Queue, None] = {}
    histories: list[Queue] = []
    seen = {exchange}
    work = [exchange]
    is_fixed = True
    for current in work:
        if current.duplicates is not None and current is not exchange:
            is_fixed = False
            if message.judged is not None and message.judged.is_dropped(current.duplicates):
                continue
        if current.delays and not message.has_waited:
            is_fixed = False
            if message.is_delayed(vhost.broker.timers.now):
                queues[vhost.delayed_of(current)] = None
                continue
        router = current.router
        is_fixed = is_fixed and router.is_fixed
        found = _destinations(vhost, current, message)
        # Looking is work too: a headers exchange looks at every binding.
        message.steps += 1 + (len(router) if router.needs_headers else len(found))
        if router.preparation:
            vhost.broker.work += router.preparation
            router.preparation = 0
        if current.history is not None and message.is_kept:
            histories.append(current.history)
        if not found and current.alternate:
            alternate = vhost.exchanges.get(current.alternate)
            found = [alternate] if alternate is not None else []
        for destination in found:
            if not isinstance(destination, Exchange):
                queues[destination] = None
            elif destination not in seen:
                seen.add(destination)
                work.append(destination)
    vhost.broker.work += message.steps
    return [*queues, *histories] if histories else list(queues), is_fixed


def _destinations(vhost: VHost, exchange: Exchange, message: Passage) -> Collection[Destination]:
    keys = message.keys
    if exchange.name == "":
        return [queue for key in keys if (queue := vhost.queues.get(key)) is not None]
    router = exchange.router
    headers = message.values(router.compared) if router.needs_headers else {}
    if router.is_selective:
        return router.route(message.key_from(router.key_source), headers)
    if len(keys) == 1:
        return router.route(keys[0], headers)
    return [found for key in keys for found in router.route(key, headers)]
