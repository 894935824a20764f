"""The command line: what it says of itself, and one line and status 2 for what it cannot use."""

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pika
import pytest

from broker import __version__, cli
from broker.server.settings import Settings, default, flag
from tests.conftest import BrokerProcess, environment, free_ports


def leveret(*args: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, as a person would."""
    command: Sequence[str] = ["-m", "broker"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, "-W", "error", *command, *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment(),
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("args", [["--version"], ["version"], ["--version", "serve"]])
def test_version_is_printed(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 0
    assert capsys.readouterr().out == f"leveret {__version__}\n"


def test_module_is_the_command() -> None:
    finished = leveret("--version")
    assert (finished.returncode, finished.stdout) == (0, f"leveret {__version__}\n")


def test_version_imports_neither_the_command_line_nor_the_settings() -> None:
    finished = leveret(
        code="import sys; from broker import cli; cli.main(['--version']);"
        "print(sorted({'typer', 'pydantic', 'asyncio', 'pathlib'} & set(sys.modules)))"
    )
    assert finished.stdout.splitlines()[-1] == "[]"


def test_bad_setting_is_refused_before_the_server_is_imported() -> None:
    finished = leveret(
        code="import sys; from broker import cli; status = cli.main(['serve', '--port', 'x']);"
        "print(status, sorted({'broker.server.serve', 'pamqp', 'rich'} & set(sys.modules)))"
    )
    assert finished.stdout == "2 []\n"


def test_help_without_a_command_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert "RabbitMQ-style AMQP 0-9-1 message broker" in text
    assert "  serve " in text
    assert "  version " in text


@pytest.mark.parametrize("name", Settings.model_fields)
def test_help_of_serve_has_flag_meaning_and_default_of_every_setting(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    assert cli.main(["serve", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    field = Settings.model_fields[name]
    assert f" {flag(name)} " in text
    assert f"{field.description} [" in text
    assert f"default: {default(field)}]" in text


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ["serve", "--port", "x"],
            (
                "leveret: setting port (from --port): 'x' is not allowed, "
                "it must be a whole number from 0 to 65535"
            ),
        ),
        (
            ["serve", "--host", "localhost", "--host", "a b"],
            (
                "leveret: setting host (from --host): 'a b' is not allowed, "
                "it must be an IPv4 or IPv6 address or a host name"
            ),
        ),
        (["serve", "--prot", "1"], "leveret: No such option: --prot"),
        (["srve"], "leveret: No such command 'srve'"),
        (["serve", "--port"], "leveret: Option '--port' requires an argument"),
        (["serve", "here"], "leveret: Got unexpected extra argument"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    args: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1


def test_bad_file_is_one_line_and_status_2(tmp_path: Path) -> None:
    file = tmp_path / "leveret.toml"
    file.write_text("prot = 1\n")
    finished = leveret("serve", "--config", str(file))
    assert finished.returncode == 2
    assert finished.stderr == (
        f"leveret: unknown key 'prot' in the settings file {file}; did you mean 'port'?\n"
    )


def test_serve_runs_the_broker_with_the_settings_and_exits_with_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[Settings] = []

    def run(settings: Settings) -> int:
        ran.append(settings)
        return 7

    monkeypatch.setattr("broker.server.serve.run", run)
    flags = ["--host", "::1", "--host", "localhost,127.0.0.1", "--port", "0", "--transient"]
    assert cli.main(["serve", *flags, "--no-tcp-keepalive", "--default-pass", "s3cret"]) == 7
    (settings,) = ran
    assert settings.host == ["::1", "localhost", "127.0.0.1"]
    assert (settings.port, settings.transient, settings.tcp_keepalive) == (0, True, False)
    assert settings.default_pass.get_secret_value() == "s3cret"
    assert settings.http_port == 15672


def test_app_exits_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["leveret", "serve", "--port", "x"])
    with pytest.raises(SystemExit) as caught:
        cli.app()
    assert caught.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_once_that_it_accepts_connections_and_ends_well(
    number: signal.Signals, start_broker: Callable[..., BrokerProcess]
) -> None:
    process = start_broker()
    assert process.stop(number) == 0
    log = process.log.read_text(encoding="utf-8")
    assert log.count("accepts connections") == 1
    assert f"127.0.0.1:{process.port}" in log
    assert "what must last is kept in " in log
    assert "nothing is kept" not in log


def test_transient_broker_says_that_nothing_is_kept(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    process = start_broker("--transient")
    assert process.stop(signal.SIGTERM) == 0
    assert "nothing is kept on disk" in process.log.read_text(encoding="utf-8")


def test_port_in_use_is_one_line_and_status_2(start_broker: Callable[..., BrokerProcess]) -> None:
    port = str(start_broker().port)
    finished = leveret("serve", "--port", port, "--http-port", "0", "--transient")
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert port in finished.stderr


def test_start_that_lost_its_port_to_another_is_tried_again(
    start_broker: Callable[..., BrokerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = start_broker().port
    ports = iter([[taken, 0], free_ports(2)])
    monkeypatch.setattr("tests.conftest.free_ports", lambda _: next(ports))
    assert start_broker().port != taken
    assert next(ports, None) is None


def test_broker_that_does_not_start_fails_the_test_with_its_reason(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    with pytest.raises(AssertionError, match=r"status 2:\n.*--frame-max"):
        start_broker("--frame-max", "1")


def test_check_data_reads_the_folder_of_a_broker(
    start_broker: Callable[..., BrokerProcess], tmp_path: Path
) -> None:
    folder = str(tmp_path / "kept")
    process = start_broker("--data-dir", folder)
    in_use = leveret("check-data", folder)
    assert (in_use.returncode, "in use" in in_use.stdout) == (0, True)
    refused = leveret("repair-data", folder)
    assert refused.returncode == 2
    assert "in use by a broker" in refused.stderr
    process.stop(signal.SIGTERM)
    checked = leveret("check-data", folder)
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "no damage found")


def test_damaged_folder_is_refused_told_and_repaired(
    start_broker: Callable[..., BrokerProcess], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    for _ in range(2):
        start_broker("--data-dir", str(folder)).stop(signal.SIGTERM)
    (segment,) = sorted(folder.glob("*.log"))
    octets = bytearray(segment.read_bytes())
    place = octets.index(b"name")
    octets[place] ^= 1
    segment.write_bytes(octets)
    checked = leveret("check-data", str(folder))
    assert checked.returncode == 1
    assert segment.name in checked.stdout
    serve = ("serve", "--port", "0", "--http-port", "0", "--data-dir", str(folder))
    refused = leveret(*serve)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert segment.name in refused.stderr
    told = leveret("repair-data", str(folder))
    assert (told.returncode, "would be" in told.stdout) == (1, True)
    assert segment.read_bytes() == octets
    done = leveret("repair-data", str(folder), "--apply")
    assert (done.returncode, "lost was" in done.stdout) == (0, True)
    assert leveret("check-data", str(folder)).returncode == 0
    assert start_broker("--data-dir", str(folder)).stop(signal.SIGTERM) == 0


def test_backup_of_a_running_broker_opens(
    start_broker: Callable[..., BrokerProcess], tmp_path: Path
) -> None:
    folder, copy = str(tmp_path / "kept"), str(tmp_path / "copy")
    process = start_broker("--data-dir", folder)
    connection = pika.BlockingConnection(pika.URLParameters(process.url))
    channel = connection.channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "q", b"kept", pika.BasicProperties(delivery_mode=2))
    assert leveret("backup-data", folder, copy).returncode == 0
    again = leveret("backup-data", folder, copy)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    connection.close()
    other = start_broker("--data-dir", copy)
    connection = pika.BlockingConnection(pika.URLParameters(other.url))
    assert connection.channel().basic_get("q", auto_ack=True)[2] == b"kept"
    connection.close()


@pytest.mark.parametrize("command", ["check-data", "repair-data"])
def test_folder_that_is_not_there_is_one_line_and_status_2(command: str, tmp_path: Path) -> None:
    finished = leveret(command, str(tmp_path / "nowhere"))
    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1)
