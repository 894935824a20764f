"""Settings: which source wins, what is refused and how it is said, and how much memory is meant."""

from pathlib import Path

import pytest

from broker.server.memory_limit import memory_limit_bytes
from broker.server.settings import Settings, SettingsError, allowed, default, flag, variable

GIB = 1 << 30


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "leveret.toml"


def refusal(**flags: object) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_of_the_design() -> None:
    settings = Settings.load({})
    assert settings.host == ["127.0.0.1"]
    assert (settings.port, settings.http_host, settings.http_port) == (5672, "127.0.0.1", 15672)
    assert settings.default_pass.get_secret_value() == "guest"
    assert (settings.frame_max, settings.channel_max, settings.heartbeat_s) == (131072, 2047, 60)
    assert settings.max_message_size == 128 * 1024 * 1024
    assert settings.product_version == "3.13.7"
    assert settings.data_dir.name == "leveret"
    assert settings.data_dir.is_absolute()


def test_flag_beats_environment_beats_file_beats_default(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text("port = 1001\nhttp_port = 1002\nframe_max = 8192\n")
    monkeypatch.setenv("LEVERET_PORT", "2001")
    monkeypatch.setenv("LEVERET_HTTP_PORT", "2002")
    settings = Settings.load({"port": "3001", "config": str(toml)})
    assert settings.port == 3001
    assert settings.http_port == 2002
    assert settings.frame_max == 8192
    assert settings.channel_max == 2047


def test_file_may_be_named_by_the_environment(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('host = ["::1", "localhost"]\ntransient = true\nmemory = 536870912\n')
    monkeypatch.setenv("LEVERET_CONFIG", str(toml))
    settings = Settings.load({})
    assert settings.host == ["::1", "localhost"]
    assert settings.transient
    assert settings.memory == "536870912"


def test_false_flag_beats_true_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERET_TRANSIENT", "true")
    assert Settings.load({}).transient
    assert not Settings.load({"transient": False}).transient


def test_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERET_PORT", "")
    assert Settings.load({}).port == 5672


def test_variables_that_kubernetes_sets_for_a_service_are_not_ours(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text("port = 1001\n")
    monkeypatch.setenv("LEVERET_PORT", "tcp://10.96.0.7:5672")
    monkeypatch.setenv("LEVERET_HTTP_PORT", "tcp://10.96.0.8:15672")
    monkeypatch.setenv("LEVERET_SERVICE_HOST", "10.96.0.7")
    settings = Settings.load({"config": str(toml)})
    assert (settings.port, settings.http_port) == (1001, 15672)


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.1, ::1", ["127.0.0.1", "::1"]),
        (["0.0.0.0", "[::1]", "::1"], ["0.0.0.0", "::1"]),
        (["a.example,b.example", "my_host"], ["a.example", "b.example", "my_host"]),
        ("fe80::1%eth0", ["fe80::1%eth0"]),
    ],
)
def test_host_takes_addresses_and_names(given: object, hosts: list[str]) -> None:
    assert Settings.load({"host": given}).host == hosts


@pytest.mark.parametrize(
    "given", ["", "a b", "127.0.0.1:5672", "1.2.3", "::g", "x" * 64, "-a", "a,,b", "a\nb", []]
)
def test_host_refuses_what_is_no_address(given: object) -> None:
    assert refusal(host=given).endswith("it must be an IPv4 or IPv6 address or a host name")


def test_virtual_hosts_are_given_as_a_list(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load({}).nack_on_alarm == []
    toml.write_text('nack_on_alarm = ["/", "orders"]\n')
    assert Settings.load({"config": str(toml)}).nack_on_alarm == ["/", "orders"]
    monkeypatch.setenv("LEVERET_NACK_ON_ALARM", "/,billing")
    assert Settings.load({}).nack_on_alarm == ["/", "billing"]
    flags = {"nack_on_alarm": ["/", "a,b", "/"]}
    assert Settings.load(flags).nack_on_alarm == ["/", "a", "b"]


def test_redeclare_is_given_for_each_virtual_host(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load({}).redeclare == {}
    toml.write_text('[redeclare]\n"/" = "warn"\norders = "adopt"\n')
    assert Settings.load({"config": str(toml)}).redeclare == {"/": "warn", "orders": "adopt"}
    monkeypatch.setenv("LEVERET_REDECLARE", "/=strict,a=b=warn")
    assert Settings.load({}).redeclare == {"/": "strict", "a=b": "warn"}
    flags = {"redeclare": ["/=adopt", "x=warn,y=strict"]}
    assert Settings.load(flags).redeclare == {"/": "adopt", "x": "warn", "y": "strict"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("port", "65536", "a whole number from 0 to 65535"),
        ("port", "amqp", "a whole number from 0 to 65535"),
        ("http_host", "a b", "an IPv4 or IPv6 address or a host name"),
        ("http_port", "-1", "a whole number from 0 to 65535"),
        ("transient", "perhaps", "true or false"),
        ("default_user", "", "1 to 255 characters"),
        ("default_vhost", "x" * 256, "1 to 255 characters"),
        ("log_level", "loud", "one of debug, info, warning, error"),
        ("log_format", "xml", "one of text, json"),
        ("heartbeat_s", "65536", "a whole number from 0 to 65535"),
        ("frame_max", "4095", "a whole number from 4096 to 131072"),
        ("frame_max", "131073", "a whole number from 4096 to 131072"),
        ("channel_max", "0", "a whole number from 1 to 65535"),
        ("handshake_timeout_s", "0", "a number above 0, at most 3600"),
        ("handshake_timeout_s", "nan", "a number above 0, at most 3600"),
        ("max_connections", "-1", "a whole number, 0 or more"),
        ("max_unauthenticated_connections", "0", "a whole number, 1 or more"),
        ("max_message_size", "536870913", "a whole number from 1 to 536870912"),
        ("memory", "plenty", "a size like 512MB or 2GiB, or a share like 40%"),
        ("memory", "101%", "a size like 512MB or 2GiB, or a share like 40%"),
        ("memory", "0", "a size like 512MB or 2GiB, or a share like 40%"),
        ("nack_on_alarm", "", "names of 1 to 255 characters"),
        ("redeclare", "/=maybe", "VHOST=MODE, with MODE one of strict, warn, adopt"),
        ("redeclare", "warn", "VHOST=MODE, with MODE one of strict, warn, adopt"),
        ("product_version", "4", "three numbers separated by dots"),
        ("tcp_keepalive", "2", "true or false"),
        ("consumers_per_channel_max", "1.5", "a whole number, 0 or more"),
        ("login_failure_delay_s", "61", "a number from 0 to 60"),
    ],
)
def test_bad_value_is_one_line_with_setting_source_and_what_is_allowed(
    name: str, value: str, words: str
) -> None:
    source = f"setting {name} (from {flag(name)})"
    assert refusal(**{name: value}) == f"{source}: {value!r} is not allowed, it must be {words}"


def test_bad_value_of_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERET_HTTP_PORT", "none")
    assert refusal().startswith("setting http_port (from LEVERET_HTTP_PORT): 'none' is not allowed")


def test_bad_value_of_the_file_names_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text("port = 99999\n")
    expected = f"setting port (from the settings file {toml}): 99999 is not allowed"
    assert refusal(config=toml).startswith(expected)
    monkeypatch.setenv("LEVERET_CONFIG", str(toml))
    assert refusal().startswith(expected)


def test_password_is_neither_in_an_error_nor_in_the_settings_text() -> None:
    assert "'" not in refusal(default_pass="")
    settings = Settings.load({"default_pass": "s3cret"})
    assert "s3cret" not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prot = 1", "unknown key 'prot' in {}; did you mean 'port'?"),
        ("http-port = 1", "unknown key 'http-port' in {}; did you mean 'http_port'?"),
        ("[zzz]\nport = 1", "unknown key 'zzz' in {}"),
        ("config = 'x'", "unknown key 'config' in {}"),
        ("port = ", "{} is not valid TOML: Invalid value (at end of document)"),
    ],
)
def test_file_with_unknown_keys_or_bad_syntax_is_refused(
    toml: Path, content: str, words: str
) -> None:
    toml.write_text(content)
    assert refusal(config=toml) == words.format(f"the settings file {toml}")


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert refusal(config=missing) == (
        f"cannot read the settings file {missing}: No such file or directory"
    )
    assert refusal(config=tmp_path) == f"cannot read the settings file {tmp_path}: Is a directory"
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert refusal(config=binary).startswith(f"the settings file {binary} is not valid TOML")


def test_unknown_setting_is_refused() -> None:
    assert refusal(nope=1) == "unknown setting 'nope'"


def test_home_is_expanded_in_the_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert Settings.load({"data_dir": "~/broker"}).data_dir == Path("/home/alice/broker")


def test_settings_cannot_be_changed() -> None:
    settings = Settings.load({})
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_tells_its_meaning_default_and_what_is_allowed(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description
    assert field.description.endswith(".")
    assert default(field)
    assert "None" not in allowed(field)
    assert str(Path.home()) not in default(field)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        ("1000B", 1000),
        ("512MB", 512_000_000),
        ("512 mb", 512_000_000),
        ("2GiB", 2 * GIB),
        ("1.5GiB", GIB * 3 // 2),
        ("2G", 2 * GIB),
        ("2Gi", 2 * GIB),
        ("1kB", 1000),
        ("1K", 1024),
        ("1TiB", 1024 * GIB),
    ],
)
def test_memory_as_a_size(text: str, expected: int) -> None:
    assert memory_limit_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "%", "-1", "0", "0%", "100.1%", "1i", "1ib", "GB", "1PB", "1e9"]
)
def test_memory_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|range"):
        memory_limit_bytes(text)


class Machine:
    """A folder with the files of /proc and /sys that tell how much memory there is."""

    def __init__(self, root: Path, memory_kib: int) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal:       {memory_kib} kB\nMemFree:  1 kB\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def limit(self, share: str = "100%") -> int:
        return memory_limit_bytes(share, root=self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine of 8 GiB."""
    return Machine(tmp_path, 8 * 1024 * 1024)


def test_share_counts_from_the_machine_where_no_group_limits(machine: Machine) -> None:
    assert machine.limit() == 8 * GIB
    assert machine.limit("40%") == 8 * GIB * 4 // 10


def test_share_counts_from_a_version_2_group(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/system.slice/leveret.service\n")
    machine.write("sys/fs/cgroup/system.slice/leveret.service/memory.max", f"{2 * GIB}\n")
    assert machine.limit() == 2 * GIB
    assert machine.limit("50%") == GIB


def test_limit_of_a_group_above_binds_too(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/system.slice/leveret.service\n")
    machine.write("sys/fs/cgroup/system.slice/leveret.service/memory.max", "max\n")
    machine.write("sys/fs/cgroup/system.slice/memory.max", f"{3 * GIB}\n")
    assert machine.limit() == 3 * GIB


def test_container_that_sees_its_own_version_2_group_as_the_top(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.write("sys/fs/cgroup/memory.max", f"{GIB}\n")
    assert machine.limit() == GIB


def test_share_counts_from_a_version_1_group(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n")
    machine.write("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", f"{GIB}\n")
    assert machine.limit() == GIB


def test_container_whose_version_1_path_exists_only_outside(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "4:memory:/docker/abc\n")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}\n")
    assert machine.limit() == GIB


def test_version_1_group_without_a_limit_is_a_huge_number(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "4:memory:/\n")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert machine.limit() == 8 * GIB


def test_machine_without_proc_asks_the_system(tmp_path: Path) -> None:
    assert memory_limit_bytes("100%", root=tmp_path) >= GIB
