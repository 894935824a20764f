"""Writes the pages of this folder that are made from the code: `make docs`.

tests/test_docs.py fails while a page says something else than the code.
"""

from collections.abc import Callable
from pathlib import Path

from broker.server.settings import Settings, allowed, default

FOLDER = Path(__file__).parent
NOTE = "<!-- Made by `make docs` from the code: change the code. -->\n"

CONFIGURATION = """# Settings

The value of a setting comes from the first place that has it: a flag of `leveret serve`, a
variable of the environment, a key of the TOML file, the default.

| In | `http_port` is written |
|---|---|
| flags | `leveret serve --http-port 8080` |
| the environment | `LEVERET_HTTP_PORT=8080` |
| the TOML file (`--config FILE` or `LEVERET_CONFIG=FILE`) | `http_port = 8080` |
| a program | `Settings(http_port=8080)` |

- A flag without a value is true; `--no-…` before its name makes it false: `--no-tcp-keepalive`.
- Several hosts: `--host 127.0.0.1 --host ::1`, `LEVERET_HOST=127.0.0.1,::1`,
  `host = ["127.0.0.1", "::1"]`.
- A value that cannot be used, and a key that the file should not have, end the start with exit
  status 2 and one line that names the setting, where the value came from and what is allowed.
- An empty variable counts as absent, and so does the `tcp://…` that Kubernetes puts into
  `LEVERET_PORT` for a Service of the name `leveret`.

"""


def configuration() -> str:
    """docs/configuration.md: every setting, from the model."""
    rows = (
        f"| `{name}` | `{default(field)}` | {allowed(field)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    head = "| Setting | Default | Allowed | Meaning |\n|---|---|---|---|\n"
    return NOTE + CONFIGURATION + head + "".join(rows)


PAGES: dict[str, Callable[[], str]] = {"configuration.md": configuration}


def main() -> None:
    """Writes each page."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
