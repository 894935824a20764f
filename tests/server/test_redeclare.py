"""`--redeclare VHOST=MODE` on a broker in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.request import urlopen

import pika
import pika.exceptions
import pytest

from tests.conftest import BrokerProcess

DIFFERENCES = (
    "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is "
    "'true'; inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but "
    "current is the value '2' of type 'signedint'"
)


def count(broker: BrokerProcess, name: str) -> int:
    with urlopen(f"{broker.http_url}/metrics") as page:  # of this broker alone
        text = page.read().decode()
    found = re.search(rf"^rabbitmq_redeclares_{name}_total (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_warning_names_all_that_differs_and_is_counted(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker("--redeclare", "/=warn")
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, arguments={"x-max-length": 2})
        for body in (b"1", b"2"):
            channel.basic_publish("", "q", body)
        assert channel.queue_declare("q").method.message_count == 2
    assert count(broker, "kept") == 1
    broker.stop()
    [line] = re.findall("declared with other.*", broker.log.read_text(encoding="utf-8"))
    assert line == f"declared with other arguments, and left as it is: {DIFFERENCES}"


def test_adopted_arguments_hold_after_a_kill(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker("--redeclare", "/=adopt")
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        channel.queue_declare("q", durable=True, arguments={"x-max-length": 1})
    assert count(broker, "adopted") == 1
    folder = broker.log.parent / "data"
    broker.kill()
    broker = start_broker("--data-dir", str(folder))
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        for body in (b"1", b"2"):
            channel.basic_publish("", "q", body)
        arguments = {"x-max-length": 1}
        found = channel.queue_declare("q", durable=True, arguments=arguments)
        assert found.method.message_count == 1
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="received none"):
            channel.queue_declare("q", durable=True)
