"""The default user: made at the first start of a data directory, and kept whatever settings say."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pika
import pika.exceptions
import pytest

from broker.core.broker import Broker
from broker.core.users import Permission
from broker.errors import AMQPError
from broker.server.server import make_broker
from broker.server.settings import Settings, variable
from tests.conftest import BrokerProcess

AWAY = "192.0.2.1"
HERE = "127.0.0.1"


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


@pytest.fixture
def start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., Broker]:
    """Starts and stops a broker with these settings, again in the same directory; its log lines
    are those of this start alone."""

    def start(**settings: object) -> Broker:
        caplog.clear()
        caplog.set_level(logging.WARNING)

        async def run() -> Broker:
            loop = asyncio.get_running_loop()
            known = Settings.load({"data_dir": str(tmp_path / "data"), **settings})
            broker = make_broker(known, loop.call_soon_threadsafe)
            assert broker.journal is not None
            broker.journal.close()
            return broker

        return asyncio.run(run())

    return start


def may_log_in(broker: Broker, name: str, password: str, host: str = HERE) -> bool:
    try:
        broker.log_in(name, password.encode(), host)
    except AMQPError:
        return False
    return True


def test_first_start_makes_the_user_of_the_settings(
    start: Callable[..., Broker], caplog: pytest.LogCaptureFixture
) -> None:
    broker = start(default_user="alice", default_pass="s3cret", default_vhost="v")
    assert broker.vhosts.keys() == {"v"}
    assert may_log_in(broker, "alice", "s3cret", AWAY)
    alice = broker.users["alice"]
    assert alice.tags == {"administrator"}
    assert alice.permissions == {"v": Permission()}
    assert caplog.messages == []


def test_later_starts_keep_the_user_without_a_word(
    start: Callable[..., Broker], caplog: pytest.LogCaptureFixture
) -> None:
    first = start(default_user="alice", default_pass="s3cret", default_vhost="v")
    for settings in ({}, {"default_user": "alice", "default_pass": "s3cret", "default_vhost": "v"}):
        again = start(**settings)
        assert again.users == first.users
        assert again.vhosts.keys() == {"v"}
        assert caplog.messages == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"default_pass": "other"}, "default_pass"),
        ({"default_user": "guest", "default_pass": "other"}, "default_pass"),
        ({"default_user": "alice"}, "default_user"),
        ({"default_user": "alice", "default_pass": "guest"}, "default_user, default_pass"),
        ({"default_vhost": "other"}, "default_vhost"),
    ],
)
def test_settings_that_differ_later_have_no_effect_and_one_line_says_so(
    start: Callable[..., Broker],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    settings: dict[str, str],
    named: str,
) -> None:
    first = start()
    again = start(**settings)
    assert again.users == first.users
    assert again.vhosts.keys() == {"/"}
    assert may_log_in(again, "guest", "guest")
    [line] = caplog.messages
    assert str(tmp_path / "data") in line
    assert line.endswith(f": {named}")
    assert "other" not in line


def test_guest_stays_on_loopback_after_a_restart(start: Callable[..., Broker]) -> None:
    start()
    broker = start()
    assert may_log_in(broker, "guest", "guest", HERE)
    assert not may_log_in(broker, "guest", "guest", AWAY)


def test_directory_without_users_gets_the_default_user_for_good(
    start: Callable[..., Broker], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        # As versions did that kept no users.
        patched.setattr("broker.server.server.make_default_user", lambda *_: None)
        assert start().users == {}
    broker = start(default_user="alice", default_pass="s3cret")
    assert caplog.messages == []
    assert broker.users.keys() == {"alice"}
    assert start().users == broker.users


def test_transient_broker_has_the_user_of_its_settings_at_each_start(tmp_path: Path) -> None:
    for password in ("one", "two"):
        settings = Settings.load(
            {"transient": True, "data_dir": str(tmp_path / "data"), "default_pass": password}
        )
        broker = make_broker(settings, lambda function: None)
        assert may_log_in(broker, "guest", password)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_password_of_the_first_start_counts_after_a_restart(
    start_broker: Callable[..., BrokerProcess], tmp_path: Path, number: signal.Signals
) -> None:
    folder = ["--data-dir", str(tmp_path / "kept"), "--login-failure-delay-s", "0"]
    first = start_broker(*folder, "--default-pass", "first")
    log_in(first, "first")
    first.stop(number)
    assert "without effect" not in first.log.read_text(encoding="utf-8")
    second = start_broker(*folder, "--default-pass", "second")
    log_in(second, "first")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        log_in(second, "second")
    lines = second.log.read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if "without effect" in line]
    assert "WARNING" in line.upper()
    assert line.endswith(": default_pass")


def log_in(broker: BrokerProcess, password: str) -> None:
    credentials = pika.PlainCredentials("guest", password)
    parameters = pika.ConnectionParameters(broker.host, broker.port, credentials=credentials)
    pika.BlockingConnection(parameters).close()
