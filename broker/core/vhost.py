"""A virtual host: its exchanges, queues and bindings, and the way of a message through them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from broker.core.arguments import check_queue_arguments
from broker.core.consumer import Owner
from broker.core.deduplication.asked import check_exchange
from broker.core.definitions import (
    Definition,
    binding_definition,
    exchange_definition,
    queue_definition,
)
from broker.core.delayed import Delayed, apart, waiting_from
from broker.core.exchange import (
    PREDECLARED,
    Destination,
    Exchange,
    binding_arguments,
    check_destination,
)
from broker.core.history import History
from broker.core.lanes import Lane
from broker.core.lasting import Lasting
from broker.core.live_policies import LivePolicies
from broker.core.message import Message
from broker.core.policies import Policy
from broker.core.priorities import PriorityQueue, make_queue
from broker.core.queue import Queue
from broker.core.recovery import restore
from broker.core.redeclare import redeclare_exchange, redeclare_queue
from broker.core.routing import Passage, find_queues
from broker.errors import AMQPError, ReplyCode, exchange_title, queue_title, resource_locked
from broker.wire.table import Table
from exchanges import BindingArgumentError

if TYPE_CHECKING:
    from broker.core.broker import Broker


class VHost:
    """One virtual host. `epoch` changes whenever a route may have changed."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker = broker
        self.name = name
        self.epoch = 0
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {"": Exchange(name, "", "direct", durable=True)}
        for exchange, kind, internal in PREDECLARED:
            self.exchanges[exchange] = Exchange(
                name, exchange, kind, durable=True, internal=internal
            )
        self.policies = LivePolicies(self)
        # Whether any exchange ever had a message that waits.
        self.has_delayed = False
        # Which exchanges a destination is bound to, and how often: deleting it asks only these.
        self._sources: dict[Destination, dict[Exchange, int]] = {}
        # The bindings that last, as they were written, by key.
        self._written: dict[tuple[Exchange, Destination], dict[Hashable, Definition]] = {}

    # Exchanges

    def get_exchange(self, name: str) -> Exchange:
        """The exchange, or NOT_FOUND."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise AMQPError(ReplyCode.NOT_FOUND, f"no {exchange_title(name, self.name)}")
        return exchange

    def declare_exchange(
        self,
        name: str,
        type_name: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table | None = None,
    ) -> Exchange:
        """Makes an exchange, or checks that the one of this name is the same (`Redeclare`).

        Raises PRECONDITION_FAILED if it differs, or for arguments that its type does not take.
        `type_name` has passed `check_type`.
        """
        arguments = arguments or {}
        flags = {"durable": durable, "auto_delete": auto_delete, "internal": internal}
        existing = self.exchanges.get(name)
        if existing is not None:
            redeclare_exchange(self, existing, {"type": type_name, **flags}, arguments)
            if existing.durable and self.broker.has_failed:
                self.broker.check_is_kept(exchange_definition(existing))
            return existing
        if durable:
            self.broker.check_can_change()
        exchange = Exchange(self.name, name, type_name, **flags, arguments=arguments)
        check_exchange(exchange.declared_type, arguments)
        self.exchanges[name] = exchange
        self.policies.apply(exchange)
        self.epoch += 1
        if durable:
            self.broker.define(exchange_definition(exchange))
        if exchange.router.history_length:
            exchange.history = History(self.broker, exchange)
            self._store_queue(exchange.history)
        return exchange

    def delete_exchange(
        self, exchange: Exchange, *, if_unused: bool = False, must_last: bool = False
    ) -> None:
        """Deletes an exchange with its bindings; PRECONDITION_FAILED if it is used and must not
        be, INTERNAL_ERROR if it must last and would not."""
        if if_unused and len(exchange.router):
            title = exchange_title(exchange.name, self.name)
            raise AMQPError(ReplyCode.PRECONDITION_FAILED, f"{title} in use")
        if self.exchanges.get(exchange.name) is not exchange:
            return
        if must_last and exchange.durable:
            self.broker.check_can_change()
        # A chain of auto-delete exchanges goes one by one, however long it is.
        leaving = [exchange]
        for gone in leaving:
            if self.exchanges.get(gone.name) is not gone:
                continue
            del self.exchanges[gone.name]
            self.epoch += 1
            self.policies.forget(gone)
            for destination in {binding.destination for binding in gone.router.bindings()}:
                self._forget_source(destination, gone)
                self._erase_bindings(gone, destination)
            if gone.durable:
                self.broker.undefine(exchange_definition(gone))
            for kept in (gone.history, gone.delayed):
                if kept is not None:
                    self._close_queue(kept)
            leaving += self._unbind_everywhere(gone)

    # Queues

    def get_queue(self, name: str, owner: Owner | None = None) -> Queue:
        """The queue; NOT_FOUND if there is none, RESOURCE_LOCKED if it is another owner's."""
        queue = self.queues.get(name)
        if queue is None:
            raise AMQPError(ReplyCode.NOT_FOUND, f"no {queue_title(name, self.name)}")
        if queue.owner is not None and queue.owner is not owner:
            raise self._locked(queue)
        return queue

    def _locked(self, queue: Queue) -> AMQPError:
        return resource_locked(queue_title(queue.name, self.name))

    def declare_queue(
        self,
        name: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        owner: Owner | None = None,
        arguments: Table | None = None,
    ) -> Queue:
        """Makes a queue, or checks that the one of this name is the same (`Redeclare`).

        `owner` makes it exclusive. Raises RESOURCE_LOCKED, or PRECONDITION_FAILED for bad or
        other arguments.
        """
        arguments = arguments or {}
        existing = self.queues.get(name)
        if existing is not None:
            if existing.owner is not owner:
                raise self._locked(existing)
            flags = {"durable": durable and owner is None, "auto_delete": auto_delete}
            redeclare_queue(self, existing, flags, arguments)
            if existing.lasting is not None and self.broker.has_failed:
                self.broker.check_is_kept(queue_definition(existing))
            return existing
        check_queue_arguments(arguments, name, self.name)
        if durable and owner is None:
            self.broker.check_can_change()
        queue = make_queue(
            self.broker,
            self.name,
            name,
            durable=durable and owner is None,
            auto_delete=auto_delete,
            owner=owner,
            arguments=arguments,
        )
        self.queues[name] = queue
        self.epoch += 1
        self._store_queue(queue)
        self.policies.apply(queue)
        self.broker.counters.queues_created += 1
        return queue

    def _store_queue(self, queue: Queue) -> None:
        journal = self.broker.journal
        if not queue.durable or journal is None:
            return
        lasting = Lasting(journal, self.broker.next_queue_id)
        self.broker.next_queue_id += 1
        restore(queue, lasting)
        self.broker.define(queue_definition(queue))

    def store_lane(self, queue: PriorityQueue, lane: Lane) -> None:
        """A queue that lasts has messages of a priority that had none yet."""
        journal = self.broker.journal
        if journal is None or journal.has_failed:
            return
        lasting = Lasting(journal, self.broker.next_queue_id)
        self.broker.next_queue_id += 1
        restore(lane, lasting)
        definition = queue_definition(queue)
        journal.extend(definition.key, definition.kind, definition.table)

    def delete_queue(
        self,
        queue: Queue,
        *,
        if_unused: bool = False,
        if_empty: bool = False,
        must_last: bool = False,
    ) -> int:
        """Deletes a queue with its bindings and returns how many ready messages went with it.

        Raises PRECONDITION_FAILED if it is used or not empty and must not be, INTERNAL_ERROR if
        its deletion must last and would not.
        """
        title = queue_title(queue.name, self.name)
        if if_empty and queue.messages_ready:
            raise AMQPError(ReplyCode.PRECONDITION_FAILED, f"{title} not empty")
        if if_unused and len(queue.consumers):
            raise AMQPError(ReplyCode.PRECONDITION_FAILED, f"{title} in use")
        if queue.is_deleted:
            return 0
        if must_last and queue.lasting is not None:
            self.broker.check_can_change()
        del self.queues[queue.name]
        self.epoch += 1
        for exchange in self._unbind_everywhere(queue):
            self.delete_exchange(exchange)
        count = queue.messages_ready
        self._close_queue(queue)
        self.broker.counters.queues_deleted += 1
        return count

    def all_queues(self) -> list[Queue]:
        """Every queue, and what exchanges keep."""
        kept: list[Queue] = []
        for exchange in self.exchanges.values():
            kept += filter(None, (exchange.history, exchange.delayed))
        return [*self.queues.values(), *kept]

    def _close_queue(self, queue: Queue) -> None:
        queue.close()
        self.policies.forget(queue)
        if queue.lasting is not None:
            self.broker.undefine(queue_definition(queue))

    # Policies

    def set_policy(self, policy: Policy) -> None:
        """Adds a policy or operator policy, or replaces the one of its name; queues and exchanges
        follow at once. Raises PolicyError for one that cannot be."""
        self.policies.set(policy)

    def clear_policy(self, name: str, *, is_operator: bool = False) -> None:
        """Takes one away. Raises PolicyError if there is none of this name."""
        self.policies.clear(name, is_operator=is_operator)

    # Bindings

    def bind(self, source: Exchange, destination: Destination, key: str, arguments: Table) -> None:
        """Binds a queue or an exchange; a binding that exists already is fine.

        Raises PRECONDITION_FAILED for a key, arguments or a destination that the exchange type
        does not take, INTERNAL_ERROR if it should last and would not, RESOURCE_ERROR if there is no
        memory for what the exchange keeps.
        """
        if self.broker.has_failed and source.durable and destination.durable:
            binding = binding_definition(source, destination, key, arguments)
            if binding.key in self._written.get((source, destination), {}):
                self.broker.check_is_kept(binding)
            else:
                self.broker.check_can_change()
        check_destination(source, destination)
        if source.history is not None:
            source.history.check_room()
        try:
            is_new = source.router.bind(key, destination, binding_arguments(arguments))
        except BindingArgumentError as error:
            raise AMQPError(ReplyCode.PRECONDITION_FAILED, str(error)) from None
        if is_new:
            sources = self._sources.setdefault(destination, {})
            sources[source] = sources.get(source, 0) + 1
            self.epoch += 1
            if self.broker.lasts and source.durable and destination.durable:
                binding = binding_definition(source, destination, key, arguments)
                self._written.setdefault((source, destination), {})[binding.key] = binding
                self.broker.define(binding)
            if source.history is not None:
                source.history.share(destination)

    def unbind(
        self,
        source: Exchange,
        destination: Destination,
        key: str,
        arguments: Table,
        requester: Owner | None,
    ) -> None:
        """Takes a binding away; one that is not there is fine. The last one to leave an
        auto-delete exchange takes the exchange with it.

        Raises RESOURCE_LOCKED if the queue is exclusive to another than `requester`,
        INTERNAL_ERROR if the log cannot forget it.
        """
        if isinstance(destination, Queue) and destination.owner not in (None, requester):
            wanted = binding_arguments(arguments)
            for binding in source.router.bindings():
                if binding == (key, destination, wanted):
                    raise self._locked(destination)
            return
        written = self._written.get((source, destination))
        if written and self.broker.has_failed:
            erased = binding_definition(source, destination, key, arguments)
            if erased.key in written:
                self.broker.check_can_change()
        if not source.router.unbind(key, destination, binding_arguments(arguments)):
            return
        self.epoch += 1
        if written is not None:
            erased = binding_definition(source, destination, key, arguments)
            written.pop(erased.key, None)
            self.broker.undefine(erased)
        sources = self._sources[destination]
        sources[source] -= 1
        if not sources[source]:
            self._forget_source(destination, source)
        if source.auto_delete and not len(source.router):
            self.delete_exchange(source)

    def _unbind_everywhere(self, destination: Destination) -> list[Exchange]:
        """Takes away every binding to this destination, and returns the auto-delete exchanges
        that have none left."""
        sources = self._sources.pop(destination, {})
        for source in sources:
            source.router.unbind_destination(destination)
            self._erase_bindings(source, destination)
        return [source for source in sources if source.auto_delete and not len(source.router)]

    def _forget_source(self, destination: Destination, source: Exchange) -> None:
        sources = self._sources.get(destination)
        if sources is not None:
            sources.pop(source, None)
            if not sources:
                del self._sources[destination]

    def _erase_bindings(self, source: Exchange, destination: Destination) -> None:
        """No binding between these lasts any more."""
        for erased in self._written.pop((source, destination), {}).values():
            self.broker.undefine(erased)

    # Routing

    def route(
        self, exchange: Exchange, routing_keys: Sequence[str], header: bytes = b""
    ) -> tuple[list[Queue], bool]:
        """The queues a message with these keys and this header frame goes to, each once. And
        whether this holds for every message with these keys, whatever its header says: if so, it
        need not be given."""
        passage = Passage(routing_keys, header, self.broker.random_bytes)
        return find_queues(self, exchange, passage)

    def delayed_of(self, exchange: Exchange) -> Delayed:
        """What waits at this exchange."""
        if exchange.delayed is None:
            exchange.delayed = Delayed(self.broker, exchange)
            self.has_delayed = True
            self._store_queue(exchange.delayed)
        return exchange.delayed

    def enqueue(self, queues: Sequence[Queue], message: Message) -> None:
        """Adds a message where `route` says it goes; where it waits, it does so from now on."""
        if self.has_delayed:
            waiting, queues = apart(queues)
            if waiting:
                self.broker.enqueue(waiting, [waiting_from(message, self.broker.timers.now)])
        if queues:
            self.broker.enqueue(queues, [message])
