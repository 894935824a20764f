"""`--definitions FILE` with a file that cannot be used: one line says what is wrong, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.cli import main
from broker.server.server import StartError
from tests.server.starts import BAD, Starts, in_slash, with_slash


@pytest.fixture
def start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Starts:
    return Starts(tmp_path, caplog, monkeypatch)


def test_file_that_is_not_there_is_one_line(start: Starts, tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        start(tmp_path / "nix.json")
    assert str(caught.value) == (
        f"cannot read the definitions file {tmp_path / 'nix.json'}: No such file or directory"
    )


@pytest.mark.parametrize(
    ("definitions", "reason"),
    [
        ([], "Input should be an object"),
        ({"queues": {}}, "queues: Input should be a valid array"),
        ({"queues": [{"name": "q"}]}, "queues[0].vhost: Field required"),
        (
            {"queues": in_slash({"name": "q", "durable": "yes"})},
            "queues[0].durable: Input should be a valid boolean",
        ),
        (
            {"queues": in_slash({"name": "ü" * 128})},
            f"queues[0].name: '{'ü' * 20}'... has more than 255 bytes",
        ),
        (
            {"queues": in_slash({"name": "q"})},
            "queues are in vhost '/', which is not there",
        ),
        (
            with_slash(queues=in_slash({"name": "q", "arguments": {"x-max-length": -1}})),
            "invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}",
        ),
        (
            with_slash(queues=in_slash({"name": "q", "arguments": {"x-a": 2**70}})),
            f"the argument {2**70} is too large",
        ),
        (
            with_slash(queues=in_slash({"name": "q", "arguments": {"x" * 256: 1}})),
            f"the name of an argument, '{'x' * 20}'..., has more than 255 bytes",
        ),
        (
            with_slash(policies=in_slash({"name": "p", "pattern": "", "definition": {"nix": 1}})),
            "policy 'p' in vhost '/': [{<<\"nix\">>,1}] are not recognised policy settings",
        ),
        (
            with_slash(
                operator_policies=in_slash(
                    {"name": "p", "pattern": "(", "definition": {"max-length": 1}}
                )
            ),
            (
                "operator policy 'p' in vhost '/': pattern should be regular expression but is "
                'invalid: {"missing ), unterminated subpattern",0}'
            ),
        ),
        (
            with_slash(policies=in_slash({"name": "p", "definition": {"max-length": 1}})),
            "policy 'p' in vhost '/': pattern should be a binary but was null",
        ),
        (
            {"users": [{"name": "bob", "password_hash": "x", "hashing_algorithm": "scrypt"}]},
            (
                "the password of user 'bob' is hashed by 'scrypt', which is unknown here: known "
                "are rabbit_password_hashing_sha256, rabbit_password_hashing_sha512, "
                "rabbit_password_hashing_md5"
            ),
        ),
        (
            {
                "users": [
                    {
                        "name": "bob",
                        "password_hash": "c2FsdA==",
                        "hashing_algorithm": "rabbit_password_hashing_sha256",
                    }
                ]
            },
            (
                "the password_hash of user 'bob' is not the base64 of a salt and a hash "
                "(rabbit_password_hashing_sha256)"
            ),
        ),
        (
            with_slash(
                permissions=in_slash({"user": "bob", "configure": "", "write": "", "read": "("})
            ),
            (
                "permissions[0].read: '(' is no regular expression: missing ), "
                "unterminated subpattern at position 0"
            ),
        ),
        (
            with_slash(
                permissions=in_slash({"user": "bob", "configure": "", "write": "", "read": ""})
            ),
            "permissions are for user 'bob', who is not there",
        ),
        (
            with_slash(bindings=in_slash({"source": "x", "destination": "q"})),
            "bindings[0].destination_type: Field required",
        ),
    ],
)
def test_bad_file_is_refused_in_one_line(start: Starts, definitions: object, reason: str) -> None:
    assert start.refused(definitions) == reason


def test_file_that_is_no_json_is_refused_with_its_place(start: Starts, tmp_path: Path) -> None:
    path = tmp_path / "no.json"
    path.write_text("{\n oops", encoding="utf-8")
    assert start.refused(path) == "Invalid JSON: key must be a string at line 2 column 2"


def test_nothing_is_changed_by_a_file_with_a_wrong_policy_at_its_end(start: Starts) -> None:
    start.refused(
        with_slash(
            queues=in_slash({"name": "q"}),
            policies=in_slash({"name": "p", "pattern": "", "definition": {"max-length": "x"}}),
        )
    )
    assert start().vhosts["/"].queues == {}


def test_arguments_that_are_nested_too_deep_are_refused(start: Starts) -> None:
    nested: dict[str, Any] = {}
    for _ in range(110):
        nested = {"x": nested}
    assert (
        start.refused(with_slash(queues=in_slash({"name": "q", "arguments": nested})))
        == "arguments are nested too deep"
    )


def test_bad_file_ends_the_command_with_status_2_and_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_text("[]", encoding="utf-8")
    flags = ["--transient", "--port", "0", "--http-port", "0", "--definitions", str(path)]
    assert main(["serve", *flags]) == 2
    assert capfd.readouterr().err == f"leveret: {BAD}{path}: Input should be an object\n"
