"""`python -m broker` is the command `leveret`."""

from broker.cli import app

app()
