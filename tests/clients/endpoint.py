"""What a client test knows of the broker it talks to."""

from typing import Protocol


class Endpoint(Protocol):
    """A running broker, as the fixture `broker` offers it."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def url(self) -> str: ...
