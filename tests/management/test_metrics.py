"""The metrics by name, type and label, and what moves them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from broker.core.broker import Broker, Limits
from broker.core.counters import SIZE_BUCKETS
from broker.management.facts import NodeFacts
from broker.management.metrics import QUEUES_SLICE, SIZE_LABELS, Metrics
from broker.management.totals import SLICE, Totals
from tests.management.client import Client, make_broker
from tests.management.exposition import DASHBOARD, EXPECTED, label_names, samples, types, value

HOSTILE = [
    'quo"te',
    "line\nend",
    "back\\slash",
    'all\\n"\\"\n\\',
    "{{.Name}}",
    '"} 1\nrabbitmq_queues 99\n#',
    "a,b=c{d}",
    "naïve → 兎 🐇",
    "\r\t\x00\x85\u2028",
    " ",
]


def facts(**known: object) -> NodeFacts:
    """The facts of a node of which everything is known but what is given."""
    all_known = {
        "node_name": "leveret@host",
        "open_sockets": lambda: 3,
        "files_max": 1024,
        "sockets_max": 960,
        "data_dir": Path(__file__).parent / "missing" / "data",
        "disk_free_min": 12345,
    }
    return NodeFacts(**{**all_known, **known})  # type: ignore[arg-type]


def page(broker: Broker, node: NodeFacts | None = None) -> str:
    return asyncio.run(Metrics(broker, node or facts()).aggregated()).decode()


def long_page(broker: Broker) -> str:
    async def read() -> bytes:
        return b"".join([piece async for piece in Metrics(broker, facts()).per_object()])

    return asyncio.run(read()).decode()


def test_page_has_exactly_the_expected_families_types_and_labels() -> None:
    text = page(make_broker(Limits(memory=1000)))
    assert types(text) == {name: kind for name, (kind, _) in EXPECTED.items()}
    found = label_names(text)
    for name, (kind, labels) in EXPECTED.items():
        if kind == "histogram":
            assert found[f"{name}_bucket"] == {*labels, "le"}
            assert found[f"{name}_sum"] == found[f"{name}_count"] == labels
        else:
            assert found[name] == labels, name


def test_every_metric_of_the_dashboard_is_there() -> None:
    names = {name for name, _ in samples(page(make_broker(Limits(memory=1000))))}
    assert len(DASHBOARD) == 44
    assert [name for name in DASHBOARD if name not in names] == []


def test_every_family_says_what_it_is_once() -> None:
    lines = page(make_broker()).splitlines()
    helped = [line.split()[2] for line in lines if line.startswith("# HELP ")]
    assert sorted(helped) == sorted(set(helped)) == sorted(types("\n".join(lines)))
    assert all(len(line.split()) > 3 for line in lines if line.startswith("# HELP "))


def test_size_buckets_are_spelled_as_the_dashboard_matches_them() -> None:
    assert [float(label) for label in SIZE_LABELS[:-1]] == list(SIZE_BUCKETS)
    broker = make_broker()
    sizes = [100, *[101] * 2, *[1_000_000] * 3, *[100_000_001] * 4]
    broker.counters.message_sizes.observe(sizes)
    bucket = "rabbitmq_message_size_bytes_bucket"
    lines = [line for line in page(broker).splitlines() if line.startswith("rabbitmq_message_size")]
    assert lines == [
        f'{bucket}{{le="100.0",protocol="amqp091"}} 1.0',
        f'{bucket}{{le="1000.0",protocol="amqp091"}} 3.0',
        f'{bucket}{{le="10000.0",protocol="amqp091"}} 3.0',
        f'{bucket}{{le="100000.0",protocol="amqp091"}} 3.0',
        f'{bucket}{{le="1e+06",protocol="amqp091"}} 6.0',
        f'{bucket}{{le="1e+07",protocol="amqp091"}} 6.0',
        f'{bucket}{{le="5e+07",protocol="amqp091"}} 6.0',
        f'{bucket}{{le="1e+08",protocol="amqp091"}} 6.0',
        f'{bucket}{{le="+Inf",protocol="amqp091"}} 10.0',
        'rabbitmq_message_size_bytes_count{protocol="amqp091"} 10.0',
        'rabbitmq_message_size_bytes_sum{protocol="amqp091"} 4.03000306e+08',
    ]


def test_identity_names_node_cluster_and_page() -> None:
    broker = make_broker()
    for text, endpoint in ((page(broker), "aggregated"), (long_page(broker), "per-object")):
        labels = {
            "rabbitmq_node": "leveret@host",
            "rabbitmq_cluster": broker.identity.cluster_name,
            "rabbitmq_endpoint": endpoint,
        }
        assert value(text, "rabbitmq_identity_info", labels) == 1
        assert value(text, "rabbitmq_build_info", {"rabbitmq_version": "3.13.7"}) == 1


def test_connections_channels_and_logins_are_counted() -> None:
    broker = make_broker()
    client = Client(broker)
    client.open_channel(2)
    Client(broker, "wrong")
    text = page(broker)
    assert value(text, "rabbitmq_connections") == 1
    assert value(text, "rabbitmq_connections_opened_total") == 1
    assert value(text, "rabbitmq_channels") == value(text, "rabbitmq_connection_channels") == 2
    assert value(text, "rabbitmq_auth_attempts_total") == 2
    assert value(text, "rabbitmq_auth_attempts_succeeded_total") == 1
    assert value(text, "rabbitmq_auth_attempts_failed_total") == 1
    client.send(2, commands.Channel.Close(200, "", 0, 0))
    assert value(page(broker), "rabbitmq_channels") == 1
    client.close()
    text = page(broker)
    assert value(text, "rabbitmq_connections") == value(text, "rabbitmq_channels") == 0
    assert value(text, "rabbitmq_connections_closed_total") == 1
    assert value(text, "rabbitmq_channels_opened_total") == 2
    assert value(text, "rabbitmq_channels_closed_total") == 2


def test_messages_are_counted_on_their_way() -> None:
    broker = make_broker()
    client = Client(broker)
    client.send(1, commands.Queue.Declare(queue="q"), commands.Confirm.Select())
    client.open_channel(2)
    for size in (1, 500, 500):
        client.publish("q", b"x" * size)
    client.publish("q", b"", channel=2)
    client.publish("nowhere", b"x")
    client.publish("nowhere", b"x", mandatory=True)
    text = page(broker)
    assert value(text, "rabbitmq_global_publishers") == 2
    assert value(text, "rabbitmq_global_messages_received_total") == 6
    assert value(text, "rabbitmq_global_messages_received_confirm_total") == 5
    assert value(text, "rabbitmq_global_messages_confirmed_total") == 5
    assert value(text, "rabbitmq_global_messages_routed_total") == 4
    assert value(text, "rabbitmq_global_messages_unroutable_dropped_total") == 1
    assert value(text, "rabbitmq_global_messages_unroutable_returned_total") == 1
    assert value(text, "rabbitmq_message_size_bytes_bucket", {"le": "100.0"}) == 4
    assert value(text, "rabbitmq_message_size_bytes_count") == 6
    assert value(text, "rabbitmq_message_size_bytes_sum") == 1003
    assert value(text, "rabbitmq_queue_messages_ready") == 4
    assert value(text, "rabbitmq_queues") == value(text, "rabbitmq_queues_created_total") == 1

    client.send(1, commands.Basic.Get(queue="q"))
    client.send(1, commands.Basic.Get(queue="q", no_ack=True))
    client.send(1, commands.Basic.Consume(queue="q", consumer_tag="c"))
    text = page(broker)
    assert value(text, "rabbitmq_global_messages_delivered_get_manual_ack_total") == 1
    assert value(text, "rabbitmq_global_messages_delivered_get_auto_ack_total") == 1
    assert value(text, "rabbitmq_global_messages_delivered_consume_manual_ack_total") == 2
    assert value(text, "rabbitmq_global_messages_delivered_total") == 4
    assert value(text, "rabbitmq_queue_messages_ready") == 0
    assert value(text, "rabbitmq_queue_messages_unacked") == 3
    assert value(text, "rabbitmq_queue_messages") == 3
    assert value(text, "rabbitmq_channel_messages_unacked") == 3
    for name in ("consumers", "channel_consumers", "queue_consumers", "global_consumers"):
        assert value(text, f"rabbitmq_{name}") == 1

    client.send(1, commands.Basic.Ack(delivery_tag=1), commands.Basic.Cancel(consumer_tag="c"))
    client.send(1, commands.Basic.Nack(delivery_tag=0, multiple=True, requeue=True))
    client.send(1, commands.Basic.Consume(queue="q", consumer_tag="d", no_ack=True))
    client.send(1, commands.Basic.Get(queue="q"))
    text = page(broker)
    assert value(text, "rabbitmq_global_messages_acknowledged_total") == 1
    assert value(text, "rabbitmq_global_messages_redelivered_total") == 2
    assert value(text, "rabbitmq_global_messages_delivered_consume_auto_ack_total") == 2
    assert value(text, "rabbitmq_global_messages_get_empty_total") == 1
    assert value(text, "rabbitmq_queue_messages") == 0
    client.send(1, commands.Queue.Delete(queue="q"))
    text = page(broker)
    assert value(text, "rabbitmq_queues") == value(text, "rabbitmq_consumers") == 0
    assert value(text, "rabbitmq_queues_deleted_total") == 1


def test_counters_never_go_down_when_clients_leave() -> None:
    broker = make_broker()
    client = Client(broker)
    client.send(1, commands.Queue.Declare(queue="q", exclusive=True), commands.Confirm.Select())
    client.publish("q", b"x" * 200)
    client.publish("q", b"x" * 200)
    client.send(1, commands.Basic.Get(queue="q"))
    client.send(1, commands.Basic.Ack(delivery_tag=1))
    before = page(broker)
    client.close()
    after = samples(page(broker))
    kinds = types(before)
    counters = {
        key: count
        for key, count in samples(before).items()
        if kinds.get(key[0]) == "counter" or key[0].startswith("rabbitmq_message_size_bytes_")
    }
    assert sum(count > 0 for count in counters.values()) > 10
    assert {key for key, count in counters.items() if after[key] < count} == set()
    assert after["rabbitmq_global_publishers", frozenset({("protocol", "amqp091")})] == 0


def test_two_brokers_share_nothing_with_each_other_or_the_process() -> None:
    one, other = make_broker(), make_broker()
    before = samples(page(other))
    Client(one).publish("nowhere", b"x")
    assert value(page(one), "rabbitmq_global_messages_received_total") == 1
    moving = {"rabbitmq_erlang_uptime_seconds", "process_start_time_seconds"}
    moving |= {name for name, _ in before if "process_" in name or "disk" in name}
    after = samples(page(other))
    assert [key for key in before if before[key] != after[key] and key[0] not in moving] == []
    shared = {family.name for family in REGISTRY.collect()}
    assert not any(name.startswith("rabbitmq_") for name in shared)


def test_a_program_may_register_the_metrics_in_its_own_registry() -> None:
    broker = make_broker()
    Client(broker).send(1, commands.Queue.Declare(queue="q"))
    registry = CollectorRegistry()
    registry.register(Metrics(broker, facts()))
    text = generate_latest(registry).decode()
    assert types(text) == types(page(broker))
    assert value(text, "rabbitmq_queues") == 1


def test_memory_alarm_follows_the_memory_in_use() -> None:
    broker = make_broker(Limits(memory=1000))
    assert value(page(broker), "rabbitmq_alarms_memory_used_watermark") == 0
    client = Client(broker)
    client.send(1, commands.Queue.Declare(queue="q"))
    client.publish("q", b"x" * 1000)
    text = page(broker)
    assert value(text, "rabbitmq_alarms_memory_used_watermark") == 1
    assert value(text, "rabbitmq_resident_memory_limit_bytes") == 1000
    client.send(1, commands.Queue.Purge(queue="q"))
    assert value(page(broker), "rabbitmq_alarms_memory_used_watermark") == 0


def test_file_descriptor_alarm_follows_the_sockets() -> None:
    alarm = "rabbitmq_alarms_file_descriptor_limit"
    assert value(page(make_broker(), facts(sockets_max=4)), alarm) == 0
    assert value(page(make_broker(), facts(sockets_max=3)), alarm) == 1
    assert value(page(make_broker(), facts(sockets_max=None)), alarm) == 0


def test_what_the_node_tells_is_shown() -> None:
    text = page(make_broker(), facts(started_at=0.0, started_at_unix=1234.5))
    assert value(text, "rabbitmq_process_open_tcp_sockets") == 3
    assert value(text, "rabbitmq_process_max_tcp_sockets") == 960
    assert value(text, "rabbitmq_process_max_fds") == 1024
    assert value(text, "process_start_time_seconds") == 1234.5
    assert value(text, "rabbitmq_erlang_uptime_seconds") > 0
    assert value(text, "rabbitmq_disk_space_available_bytes") > 0
    assert value(text, "rabbitmq_disk_space_available_limit_bytes") == 12345


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    unknown = facts(files_max=None, sockets_max=None, data_dir=None, proc=tmp_path)
    shown = types(page(make_broker(), unknown))
    assert set(EXPECTED) - set(shown) == {
        "rabbitmq_process_resident_memory_bytes",
        "rabbitmq_process_open_fds",
        "rabbitmq_process_max_fds",
        "rabbitmq_process_max_tcp_sockets",
        "rabbitmq_disk_space_available_bytes",
        "rabbitmq_disk_space_available_limit_bytes",
        # A broker without a memory limit has none to show.
        "rabbitmq_resident_memory_limit_bytes",
    }


def test_linux_is_asked_for_memory_and_file_descriptors(tmp_path: Path) -> None:
    (tmp_path / "fd").mkdir()
    for number in range(5):
        (tmp_path / "fd" / str(number)).touch()
    (tmp_path / "statm").write_text("9000 10 7 1 0 5 0\n")
    node = facts(proc=tmp_path)
    # One of the five is the listing itself.
    assert node.open_files() == 4
    resident = node.resident_bytes()
    assert resident is not None
    assert resident % 10 == 0
    assert resident >= 10 * 4096


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_queue_names_stay_inside_their_label(name: str) -> None:
    broker = make_broker()
    broker.add_vhost('/"v\n\\')
    broker.vhosts["/"].declare_queue(name)
    broker.vhosts['/"v\n\\'].declare_queue(name)
    text = long_page(broker)
    found = {labels for family, labels in samples(text) if family == "rabbitmq_queue_messages"}
    assert found == {
        frozenset({("queue", name), ("vhost", "/")}),
        frozenset({("queue", name), ("vhost", '/"v\n\\')}),
    }
    assert value(text, "rabbitmq_queues") == 2


@given(names=st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5))
def test_every_queue_name_can_be_read_back(names: set[str]) -> None:
    broker = make_broker()
    for name in names:
        broker.vhosts["/"].declare_queue(name)
    found = samples(long_page(broker))
    read = {
        dict(labels)["queue"] for family, labels in found if family == "rabbitmq_queue_messages"
    }
    assert read == names


def test_per_object_page_splits_the_queues_of_the_short_page() -> None:
    broker = make_broker()
    client = Client(broker)
    for number in range(2 * QUEUES_SLICE + 3):
        client.send(1, commands.Queue.Declare(queue=f"q{number}"))
        client.publish(f"q{number}", b"x")
    client.publish("q1", b"x")
    client.send(1, commands.Basic.Consume(queue="q1", consumer_tag="c"))
    whole, split = page(broker), long_page(broker)
    q1 = {"vhost": "/", "queue": "q1"}
    assert value(split, "rabbitmq_queue_messages_ready", q1) == 0
    assert value(split, "rabbitmq_queue_messages_unacked", q1) == 2
    assert value(split, "rabbitmq_queue_messages", q1) == 2
    assert value(split, "rabbitmq_queue_consumers", q1) == 1
    parts = samples(split)
    per_queue = ("messages_ready", "messages_unacked", "messages", "consumers")
    for name in (f"rabbitmq_queue_{end}" for end in per_queue):
        assert sum(v for (n, _), v in parts.items() if n == name) == value(whole, name)
    assert types(split) == types(whole)
    others = {key for key in parts if not key[0].startswith("rabbitmq_queue_")}
    assert {name for name, _ in others} == {
        name for name, _ in samples(whole) if not name.startswith("rabbitmq_queue_")
    }


def test_clients_have_their_turn_while_a_large_broker_is_scraped() -> None:
    broker = make_broker()
    for number in range(2 * SLICE):
        broker.vhosts["/"].declare_queue(f"q{number}")
    metrics = Metrics(broker, facts())
    turns = 0

    async def serve_clients() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def turns_during(scrape: Callable[[], Awaitable[object]]) -> int:
        nonlocal turns
        clients = asyncio.create_task(serve_clients())
        await asyncio.sleep(0)
        turns = 0
        await scrape()
        clients.cancel()
        return turns

    async def read_per_object() -> None:
        async for _ in metrics.per_object():
            pass

    assert asyncio.run(turns_during(metrics.aggregated)) >= 2
    assert asyncio.run(turns_during(read_per_object)) >= 2 * SLICE / QUEUES_SLICE


def test_the_broker_may_change_between_two_slices() -> None:
    broker = make_broker()
    vhost = broker.vhosts["/"]
    for number in range(SLICE + 10):
        vhost.declare_queue(f"q{number}")
    totals = Totals()
    slices = totals.count(broker)
    next(slices)
    for number in range(20):
        vhost.delete_queue(vhost.queues[f"q{number}"])
    vhost.declare_queue("new")
    broker.add_vhost("other")
    client = Client(broker)
    client.publish("new", b"x")
    for _ in slices:
        pass
    assert totals.queues == SLICE - 9
    assert totals.publishers == 1
