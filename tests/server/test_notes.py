"""What the broker notes, as log lines."""

import logging

import pytest

from broker.core.policies import Policy
from broker.server.notes import log_note


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
