"""The command `leveret`.

Every import is part of the start-up time, so each is made where it is first needed: `leveret
--version` imports nothing, a bad setting is refused before the server is imported.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_origin

from broker import __version__

if TYPE_CHECKING:
    from inspect import Parameter

    import typer
    from pydantic.fields import FieldInfo

# The usual exit status of a command that was used wrongly; also of a bad setting.
USAGE_STATUS = 2


def app() -> None:
    """Runs the command line and exits with its status: 2 and one line on stderr if it is wrong."""
    sys.exit(main(sys.argv[1:]))


def main(args: Sequence[str]) -> int:
    """The exit status of `leveret` with these arguments."""
    if list(args) in (["--version"], ["version"]):
        return version()
    import typer

    from broker.server.settings import SettingsError
    from broker.storage.log import LogError

    try:
        status = command_line()(list(args) or ["--help"], "leveret", standalone_mode=False)
    except (SettingsError, LogError, typer.TyperException) as error:
        text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        print(f"leveret: {' '.join(text.split())}", file=sys.stderr)
        return USAGE_STATUS
    return int(status or 0)


def version() -> int:
    """Print the version."""
    print(f"leveret {__version__}")
    return 0


def command_line() -> "typer.Typer":
    """All commands and their flags."""
    import typer

    commands = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    commands.command()(_serve())
    commands.command()(version)
    commands.command("check-data")(check_data)
    commands.command("repair-data")(repair_data)
    commands.command("backup-data")(backup_data)

    @commands.callback()
    def leveret(
        show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        """A RabbitMQ-style AMQP 0-9-1 message broker."""
        if show_version:
            raise typer.Exit(version())

    return commands


def check_data(folder: str) -> int:
    """Read a data directory, whether it is in use or not, and say what is in it.

    Nothing is changed. The status is 1 if a broker would not start with it.
    """
    from pathlib import Path

    from broker.storage.check import check_directory

    report = check_directory(Path(folder))
    print("\n".join(report.lines()))
    return 0 if report.ok else 1


def repair_data(folder: str, apply: bool = False) -> int:
    """Say what would be lost if a damaged data directory were repaired, and do it with --apply.

    The status is 1 if there is something to repair that was not.
    """
    from pathlib import Path

    from broker.storage.repair import repair_directory

    report = repair_directory(Path(folder), apply=apply)
    print("\n".join(report.lines()))
    return 1 if report.needed and not apply else 0


def backup_data(folder: str, target: str) -> int:
    """Copy a data directory, in use or not, into one that is new or empty.

    Everything that was durable when it began is in the copy, which opens as after a crash.
    """
    from pathlib import Path

    from broker.storage.backup import backup_directory

    backup_directory(Path(folder), Path(target))
    return 0


def _serve() -> Callable[..., int]:
    """The command `serve`, with one flag for each setting."""
    import inspect

    from broker.server.settings import Settings

    def serve(**flags: object) -> int:
        """Run the broker until SIGTERM or SIGINT.

        Each setting may also be given as LEVERET_… in the environment (LEVERET_HTTP_PORT) or in a
        TOML file (http_port = 15672). A flag wins over the environment, which wins over the file.
        """
        given = {name: value for name, value in flags.items() if value not in (None, [])}
        settings = Settings.load(given)
        from broker.server.serve import run

        return run(settings)

    parameters = [_flag(name, field) for name, field in Settings.model_fields.items()]
    signature = inspect.Signature(parameters, return_annotation=int)
    # typer reads flags from the signature: it is made from the settings instead of being a copy.
    serve.__signature__ = signature  # type: ignore[attr-defined]  # functions may have it
    serve.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return serve


def _flag(name: str, field: "FieldInfo") -> "Parameter":
    """One flag. Values stay text: the settings check them, with one form of error for all."""
    import inspect

    import typer

    from broker.server.settings import allowed, default, flag

    kind: Any = str
    metavars: dict[Any, str] = {int: "N", float: "SECONDS"}
    names, limits = flag(name), f"{allowed(field)}; "
    if field.annotation is bool:
        kind, names, limits = bool, f"{names}/--no-{names[2:]}", ""
    elif get_origin(field.annotation) in (list, dict):
        kind = list[str]
    option = typer.Option(
        names,
        help=f"{field.description} [{limits}default: {default(field)}]",
        metavar=metavars.get(field.annotation),
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
