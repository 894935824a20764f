"""What the broker notes, as log lines."""

import logging

import pytest

from broker.core.policies import Policy
from broker.server.notes import log_note


@pytest.mark.parametrize(
    ("consumer", "action", "shown"),
    [
        ("c\n", "requeue", r"consumer 'c\n' has not settled 2 deliveries|they are requeued"),
        ("c", "cancel-consumer", "consumer 'c'|requeued and the consumer is cancelled"),
        ("", "close-channel", "basic.get has|the channel is closed"),
    ],
)
def test_log_tells_who_was_late_and_what_becomes_of_it(
    caplog: pytest.LogCaptureFixture, consumer: str, action: str, shown: str
) -> None:
    details = {
        "connection": "127.0.0.1:40000 -> 127.0.0.1:5672",
        "channel": 3,
        "consumer": consumer,
        "queue": "q\x1b",
        "vhost": "/",
        "count": 2,
        "age": 1010,
        "timeout": 1000,
        "action": action,
    }
    log_note("consumer_timeout", details)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    begin, end = shown.split("|")
    assert f"127.0.0.1:40000 -> 127.0.0.1:5672 channel 3: {begin}" in record.message
    assert record.message.endswith(end)
    assert r"of queue 'q\x1b' in vhost '/' within 1000 ms, the oldest for 1010 ms" in record.message


def test_policy_that_is_set_is_told_with_the_keys_that_do_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = Policy("p\n", "^a\x1b", {"ha-mode": "all"}, "queues", 3, is_operator=True)
    with caplog.at_level(logging.INFO, "leveret.server"):
        log_note("policy_set", {"vhost": "/", "policy": policy, "ignored": ["ha-mode"]})
        log_note("policy_cleared", {"vhost": "/", "policy": policy})
    title = r"operator policy 'p\n' in vhost '/'"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", rf"{title} is set: queues with names that match '^a\x1b', priority 3"),
        ("WARNING", f"{title}: keys without effect: ha-mode"),
        ("INFO", f"{title} is cleared"),
    ]
