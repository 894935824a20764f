"""The programs in examples/ do what their first lines say, each form with the other."""

from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    MAX_LEVEL,
    level_name,
)

from tests.conftest import RunningBroker

from .program import Program

EXAMPLES = Path(__file__).parents[2] / "examples"
LEVELS = tuple(level_name(level) for level in range(MAX_LEVEL + 1))
QUEUES = ("task_queue", "rpc_queue", "celery", "jobs", *LEVELS)
EXCHANGES = (
    "logs",
    "direct_logs",
    "topic_logs",
    "jobs",
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    *LEVELS,
)


@pytest.fixture(autouse=True)
def _clean_broker(broker: RunningBroker) -> Iterator[None]:
    """The programs use fixed names: nothing of an earlier test may be left."""

    def clean() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            for queue in QUEUES:
                channel.queue_delete(queue)
            for exchange in EXCHANGES:
                channel.exchange_delete(exchange)

    clean()
    yield
    clean()


def start(broker: RunningBroker, name: str, *words: str) -> Program:
    """Start an example: the pika form takes the URL as an argument, the other from AMQP_URL."""
    path = EXAMPLES / name
    if path.name.startswith("aio_"):
        return Program("-W", "error", path, *words, env={"AMQP_URL": broker.url})
    return Program("-W", "error", path, broker.url, *words, env={"AMQP_URL": "amqp://nowhere/"})


def run(broker: RunningBroker, name: str, *words: str) -> list[str]:
    with start(broker, name, *words) as program:
        return program.finish()


def test_every_example_is_run_by_a_test() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    names = [str(path.relative_to(EXAMPLES)) for path in sorted(EXAMPLES.rglob("*.py"))]
    assert names
    assert [name for name in names if name not in here and Path(name).name not in here] == []


def test_work_queue_gives_each_job_to_one_worker(broker: RunningBroker) -> None:
    with (
        start(broker, "work_queue/worker.py") as blocking,
        start(broker, "work_queue/aio_worker.py") as asynchronous,
    ):
        blocking.expect("[*] Waiting")
        asynchronous.expect("[*] Waiting")
        assert run(broker, "work_queue/new_task.py", "one.") == [" [x] Sent 'one.'"]
        assert run(broker, "work_queue/aio_new_task.py", "two.") == [" [x] Sent 'two.'"]
        # Round robin: each of the two free workers gets one.
        blocking.expect(" [x] Done")
        asynchronous.expect(" [x] Done")
        lines = blocking.interrupt() + asynchronous.interrupt()
    assert sorted(line for line in lines if "Received" in line) == [
        " [x] Received 'one.'",
        " [x] Received 'two.'",
    ]
    assert lines.count(" [x] Done") == 2


@pytest.mark.parametrize("form", ["worker.py", "aio_worker.py"])
def test_job_of_a_killed_worker_goes_to_another(broker: RunningBroker, form: str) -> None:
    sender = form.replace("worker", "new_task")
    assert run(broker, f"work_queue/{sender}", "x" + "." * 5) == [" [x] Sent 'x.....'"]
    with start(broker, f"work_queue/{form}") as first:
        first.expect("Received")
        first.kill()
        assert " [x] Done" not in first.lines
    with start(broker, f"work_queue/{form}") as second:
        second.expect(" [x] Received 'x.....'")
        second.expect(" [x] Done")
        second.interrupt()


def test_published_lines_reach_every_listener(broker: RunningBroker) -> None:
    with (
        start(broker, "publish_subscribe/receive_logs.py") as blocking,
        start(broker, "publish_subscribe/aio_receive_logs.py") as asynchronous,
    ):
        blocking.expect("[*] Waiting")
        asynchronous.expect("[*] Waiting")
        run(broker, "publish_subscribe/emit_log.py", "first", "line")
        run(broker, "publish_subscribe/aio_emit_log.py")
        for listener in (blocking, asynchronous):
            listener.expect(" [x] info: Hello World!")
            assert listener.interrupt()[1:] == [" [x] first line", " [x] info: Hello World!"]


def test_routing_selects_by_severity(broker: RunningBroker) -> None:
    with (
        start(broker, "routing/receive_logs_direct.py", "warning", "error") as blocking,
        start(broker, "routing/aio_receive_logs_direct.py", "error", "info") as asynchronous,
    ):
        blocking.expect("[*] Waiting")
        asynchronous.expect("[*] Waiting")
        run(broker, "routing/emit_log_direct.py", "warning", "hot")
        run(broker, "routing/aio_emit_log_direct.py")
        run(broker, "routing/emit_log_direct.py", "debug", "unheard")
        run(broker, "routing/aio_emit_log_direct.py", "error", "on", "fire")
        for listener in (blocking, asynchronous):
            listener.expect(" [x] error:'on fire'")
        assert blocking.interrupt()[1:] == [" [x] warning:'hot'", " [x] error:'on fire'"]
        assert asynchronous.interrupt()[1:] == [
            " [x] info:'Hello World!'",
            " [x] error:'on fire'",
        ]


def test_topics_select_by_pattern(broker: RunningBroker) -> None:
    with (
        start(broker, "topics/receive_logs_topic.py", "kern.*", "#.critical") as blocking,
        start(broker, "topics/aio_receive_logs_topic.py", "#") as asynchronous,
    ):
        blocking.expect("[*] Waiting")
        asynchronous.expect("[*] Waiting")
        run(broker, "topics/emit_log_topic.py", "kern.info", "boot")
        run(broker, "topics/aio_emit_log_topic.py")
        run(broker, "topics/aio_emit_log_topic.py", "app.db.critical", "gone")
        for listener in (blocking, asynchronous):
            listener.expect(" [x] app.db.critical:'gone'")
        assert blocking.interrupt()[1:] == [" [x] kern.info:'boot'", " [x] app.db.critical:'gone'"]
        assert asynchronous.interrupt()[1:] == [
            " [x] kern.info:'boot'",
            " [x] anonymous.info:'Hello World!'",
            " [x] app.db.critical:'gone'",
        ]


@pytest.mark.parametrize("server", ["rpc/rpc_server.py", "rpc/aio_rpc_server.py"])
def test_rpc_clients_get_their_answers(broker: RunningBroker, server: str) -> None:
    with start(broker, server) as serving:
        serving.expect("[*] Awaiting")
        assert run(broker, "rpc/rpc_client.py", "10") == [
            " [x] Requesting fibonacci(10)",
            " [.] Got 55",
        ]
        assert run(broker, "rpc/aio_rpc_client.py", "30", "1", "7") == [
            " [x] Requesting fibonacci of 30, 1, 7",
            " [.] Got 832040",
            " [.] Got 1",
            " [.] Got 13",
        ]
        served = serving.interrupt()[1:]
    assert served[0] == " [.] fibonacci(10)"
    assert sorted(served[1:]) == [" [.] fibonacci(1)", " [.] fibonacci(30)", " [.] fibonacci(7)"]


@pytest.mark.parametrize(
    "name",
    [
        "publisher_confirms/publish_with_confirms.py",
        "publisher_confirms/aio_publish_with_confirms.py",
    ],
)
def test_confirms_count_what_the_broker_took_and_show_what_it_returned(
    broker: RunningBroker, name: str
) -> None:
    first, second = run(broker, name, "120")
    assert first == " [x] 120 of 120 messages confirmed"
    assert second.startswith(" [!] Returned: ")
    assert "NO_ROUTE" in second


def test_receivers_without_a_key_say_how_to_use_them(broker: RunningBroker) -> None:
    for name in (
        "routing/receive_logs_direct.py",
        "routing/aio_receive_logs_direct.py",
        "topics/receive_logs_topic.py",
        "topics/aio_receive_logs_topic.py",
    ):
        with start(broker, name) as program:
            program.expect(f"usage: {Path(name).name} [URL]")
            assert program.process.wait() == 1


def enqueue(broker: RunningBroker, name: str) -> list[str]:
    """What `enqueue.py` of a Celery application prints while its worker runs."""
    folder = EXAMPLES / name
    worker = ("-m", "celery", "-A", "tasks", "worker", "--loglevel", "INFO", "-c", "2")
    assert (folder / "tasks.py").exists()
    with Program(*worker, cwd=folder, env={"AMQP_URL": broker.url}) as celery:
        celery.expect(" ready.")
        with Program("enqueue.py", broker.url, cwd=folder) as program:
            return program.finish()


def test_celery_application_runs_its_tasks(broker: RunningBroker) -> None:
    assert enqueue(broker, "celery_app") == [
        " [x] add: 5",
        " [x] fetch: http://example.com/ fetched at attempt 3",
        " [x] countdown: ran after half a second",
        " [x] group: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]",
    ]


def test_celery_tasks_wait_in_the_broker_until_they_are_due(broker: RunningBroker) -> None:
    *reminders, charged = enqueue(broker, "celery_delayed")
    assert charged == " [x] order-0 charged at attempt 2"
    said = [line.removesuffix(" s").split(": after ") for line in reminders]
    assert [order for order, _ in said] == [f" [x] order-{seconds}" for seconds in range(4)]
    waited = [float(time) for _, time in said]
    assert waited == sorted(waited)
    assert all(seconds >= place for place, seconds in enumerate(waited))


def test_poison_message_is_tried_three_times_and_set_aside(broker: RunningBroker) -> None:
    lines = run(broker, "poison_message/poison_message.py", "100")
    assert [line.partition(",")[0] for line in lines if "failed" in line] == [
        " [!] poison failed"
    ] * 3
    assert [line.split("attempt ")[1][0] for line in lines if "attempt" in line] == ["1", "2", "3"]
    done = [place for place, line in enumerate(lines) if "second done" in line]
    last = max(place for place, line in enumerate(lines) if "attempt 3" in line)
    # Others pass the one that waits.
    assert done[0] < last
    assert lines[-1] == " [-] poison was set aside by poison.jobs: delivery_limit, 1 time"


def test_chat_rooms_are_worked_on_side_by_side_and_in_order(broker: RunningBroker) -> None:
    first, *rooms = run(broker, "chat_rooms/chat_rooms.py", "0.2")
    assert rooms == [f" [x] {room}: 1 2 3 4" for room in ("kitchen", "garden", "attic")]
    turns = first.removeprefix(" [*] in turn: ").split()
    # Each worker took a room, though one room said all it had to say first.
    assert {turn.partition(":")[0] for turn in turns[:3]} == {"kitchen", "garden", "attic"}


def test_competing_tenants_are_served_in_turn(broker: RunningBroker) -> None:
    lines = run(broker, "competing_tenants/competing_tenants.py", "50")
    assert lines == [
        " [x] large 1",
        " [x] small 1",
        " [x] tiny 1",
        " [x] large 2",
        " [x] large 3",
        " [x] large 4",
        " [*] 46 jobs of the large one are left",
    ]


def test_order_timeout_cancels_what_is_not_paid(broker: RunningBroker) -> None:
    lines = run(broker, "order_timeout/order_timeout.py", "0.6")
    assert lines[3:] == [
        " [!] order-3 is cancelled",
        " [x] order-2 is paid",
        " [!] order-1 is cancelled",
    ]


def test_payment_is_retried_by_the_one_that_failed(broker: RunningBroker) -> None:
    lines = run(broker, "payment/payment.py", "50")
    assert lines.count(" [x] payment.receipt is done") == 1
    assert lines.count(" [!] payment.booking failed: the ledger is closed") == 2
    assert lines[-1] == " [x] payment.booking is done"
