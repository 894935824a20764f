"""Writes the pages of this folder that are made from the code: `make docs`.

tests/test_docs.py fails while a page says something else than the code.
"""

from collections.abc import Callable
from pathlib import Path

from broker.core.broker import Broker
from broker.management.facts import NodeFacts
from broker.management.families import FAMILIES, QUEUES
from broker.management.metrics import Metrics
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
  `host = ["127.0.0.1", "::1"]`. So with several virtual hosts.
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


METRICS = """# Metrics

The HTTP port answers on `/metrics` in Prometheus' text format, with the names, types and labels of
RabbitMQ's Prometheus plugin, so that its dashboards and alerts work unchanged. Those marked `per
queue` are sums there; `/metrics/per-object` gives them for each queue, with the labels `queue` and
`vhost`: ask for it seldom where there are many queues.

    scrape_configs:
      - job_name: leveret
        static_configs: [{targets: ["127.0.0.1:15672"]}]

A counter counts from the start of the broker and never goes down. What the machine does not tell
(open files outside Linux, say) is left out. `/health` answers 200 with `{"status": "ok"}` and the
alarms that are on, and 503 while the broker is stopping.

"""

NO_METRICS = """
RabbitMQ's metrics of what is not here are missing: replicas and Raft, streams, dead letters, queues
on disk, Erlang's runtime. So are `/metrics/detailed` and `/metrics/memory-breakdown` (404).
"""


def metrics() -> str:
    """docs/metrics.md: every metric, from the families of a broker that has just been made."""
    rows: list[tuple[str, str, str, str]] = []
    for family in (*QUEUES, *FAMILIES):
        labels = ", ".join(f'`{name}="{value}"`' for name, value in family.labels.items())
        labels = "per queue" if family in QUEUES else labels
        rows.append((family.name, family.type, labels, family.help))
    known = {family.name for family in (*QUEUES, *FAMILIES)}
    broker = Broker(bytes)
    for metric in Metrics(broker, NodeFacts(node_name="", open_sockets=lambda: 0)).collect():
        if not {metric.name, f"{metric.name}_total"} & known:
            labels = ", ".join(f"`{name}`" for name in metric.samples[0].labels)
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            rows.append((name, metric.type, labels, metric.documentation))
    head = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n"
    lines = (f"| `{name}` | {kind} | {labels} | {text} |\n" for name, kind, labels, text in rows)
    return NOTE + METRICS + head + "".join(lines) + NO_METRICS


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "metrics.md": metrics,
}


def main() -> None:
    """Writes each page."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
