"""Exchanges, queues and bindings against the plainest model, in whatever order they come and go."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.core.exchange import Destination, Exchange
from broker.wire.table import Field
from tests.core.fakes import make_vhost
from tests.wire.profiles import steps

NAMES = ("a", "b", "c", "d")
KEYS = ("k", "l")
names = st.sampled_from(NAMES)
keys = st.sampled_from(KEYS)
# An exchange `a`, or a queue `qa`.
places = st.sampled_from([*NAMES, *(f"q{name}" for name in NAMES)])


class TopologyMachine(RuleBasedStateMachine):
    """A model of three sets, and routing by asking each binding."""

    @initialize()
    def begin(self) -> None:
        self.vhost = make_vhost()
        # (type, auto-delete, alternate) by name.
        self.exchanges: dict[str, tuple[str, bool, str | None]] = {}
        self.queues: set[str] = set()
        self.bindings: set[tuple[str, str, str]] = set()
        self.routes: dict[tuple[str, str], set[str]] = {}
        self.epoch = -1
        for name, kind in (("a", "direct"), ("b", "fanout")):
            self.declare_exchange(name, kind, auto_delete=name == "b", alternate=None)
            self.declare_queue(name)
            self.bind(name, f"q{name}", "k")

    def exists(self, place: str) -> bool:
        return place in self.exchanges or place in self.queues

    def found(self, place: str) -> Destination:
        return self.vhost.queues[place] if place[0] == "q" else self.vhost.exchanges[place]

    @rule(
        name=names,
        kind=st.sampled_from(["direct", "fanout", "topic"]),
        auto_delete=st.booleans(),
        alternate=st.one_of(st.none(), names),
    )
    def declare_exchange(
        self, name: str, kind: str, *, auto_delete: bool, alternate: str | None
    ) -> None:
        if name in self.exchanges:
            return
        arguments = {} if alternate is None else {"alternate-exchange": Field("longstr", alternate)}
        self.vhost.declare_exchange(name, kind, auto_delete=auto_delete, arguments=arguments)
        self.exchanges[name] = kind, auto_delete, alternate

    @rule(name=names)
    def declare_queue(self, name: str) -> None:
        self.vhost.declare_queue(f"q{name}")
        self.queues.add(f"q{name}")

    @rule(source=names, destination=places, key=keys)
    def bind(self, source: str, destination: str, key: str) -> None:
        if source in self.exchanges and self.exists(destination):
            exchange = self.vhost.exchanges[source]
            self.vhost.bind(exchange, self.found(destination), key, {})
            self.bindings.add((source, destination, key))

    @rule(source=names, destination=places, key=keys)
    def unbind(self, source: str, destination: str, key: str) -> None:
        if source in self.exchanges and self.exists(destination):
            exchange = self.vhost.exchanges[source]
            self.vhost.unbind(exchange, self.found(destination), key, {}, None)
            self.drop({(source, destination, key)})

    @rule(name=names)
    def delete_queue(self, name: str) -> None:
        if f"q{name}" in self.queues:
            self.vhost.delete_queue(self.vhost.queues[f"q{name}"])
            self.remove(f"q{name}")

    @rule(name=names)
    def delete_exchange(self, name: str) -> None:
        if name in self.exchanges:
            self.vhost.delete_exchange(self.vhost.exchanges[name])
            self.remove(name)

    def remove(self, place: str) -> None:
        self.exchanges.pop(place, None)
        self.queues.discard(place)
        # Bindings from a deleted exchange make nobody auto-delete.
        self.bindings = {binding for binding in self.bindings if binding[0] != place}
        self.drop({binding for binding in self.bindings if binding[1] == place})

    def drop(self, gone: set[tuple[str, str, str]]) -> None:
        gone = gone & self.bindings
        self.bindings -= gone
        for source in {source for source, _, _ in gone}:
            is_bound = any(binding[0] == source for binding in self.bindings)
            if source in self.exchanges and self.exchanges[source][1] and not is_bound:
                self.remove(source)

    def model_route(self, name: str, key: str) -> set[str]:
        reached, work = {name}, [name]
        while work:
            current = work.pop()
            if current in self.queues:
                continue
            kind, _, alternate = self.exchanges[current]
            found = {
                destination
                for source, destination, bound in self.bindings
                if source == current and (kind == "fanout" or bound == key)
            }
            if not found and alternate in self.exchanges:
                found = {str(alternate)}
            work += found - reached
            reached |= found
        return reached & self.queues

    @invariant()
    def the_same_things_are_there(self) -> None:
        own = {name for name in self.vhost.exchanges if name in NAMES}
        assert own == set(self.exchanges)
        assert set(self.vhost.queues) == self.queues
        bindings = {
            (name, binding.destination.name, binding.binding_key)
            for name in own
            for binding in self.vhost.exchanges[name].router.bindings()
        }
        assert bindings == self.bindings

    @invariant()
    def destinations_know_their_sources(self) -> None:
        known = {
            (source.name, destination.name): count
            for destination, sources in self.vhost._sources.items()
            for source, count in sources.items()
        }
        counted: dict[tuple[str, str], int] = {}
        for source, destination, _ in self.bindings:
            counted[source, destination] = counted.get((source, destination), 0) + 1
        assert known == counted

    @invariant()
    def routes_are_those_of_the_model_and_change_with_the_epoch(self) -> None:
        routes = {}
        for name in self.exchanges:
            for key in KEYS:
                exchange: Exchange = self.vhost.exchanges[name]
                queues, is_fixed = self.vhost.route(exchange, [key])
                assert is_fixed
                assert len(queues) == len(set(queues))
                routes[name, key] = {queue.name for queue in queues}
                assert routes[name, key] == self.model_route(name, key)
        if routes != self.routes:
            assert self.vhost.epoch != self.epoch
        self.routes, self.epoch = routes, self.vhost.epoch


TestTopologyMachine = TopologyMachine.TestCase
TestTopologyMachine.settings = steps(35, 40)
