"""An AMQP client without a socket: frames go straight into the broker's connection."""

import os

from pamqp import body, commands, frame, header
from pamqp.base import Frame

from broker.core.broker import Broker, Limits
from broker.core.users import Permission
from broker.protocol.connection import Connection


def make_broker(limits: Limits | None = None) -> Broker:
    """A broker with the virtual host `/` and the user guest."""
    broker = Broker(os.urandom, limits=limits)
    broker.add_vhost("/")
    broker.add_user("guest", b"guest", permissions={"/": Permission()})
    return broker


class Client:
    """A connection that is open, unless the login was refused; it has channel 1."""

    def __init__(self, broker: Broker, password: str = "guest") -> None:
        self.connection = Connection(
            broker, peer=("127.0.0.1", 50000), local=("127.0.0.1", 5672), outbox=[], now=0.0
        )
        self.connection.receive_data(b"AMQP\x00\x00\x09\x01", 0.0)
        response = f"\0guest\0{password}"
        self.send(0, commands.Connection.StartOk(mechanism="PLAIN", response=response))
        self.send(0, commands.Connection.TuneOk(2047, 131072, 0))
        self.send(0, commands.Connection.Open("/"))
        self.open_channel(1)

    def send(self, channel: int, *methods: Frame) -> None:
        """Sends methods on a channel, all in one chunk; their answers are thrown away."""
        self.connection.receive_data(b"".join(frame.marshal(m, channel) for m in methods), 0.0)
        self.connection.data_to_send()

    def open_channel(self, channel: int) -> None:
        self.send(channel, commands.Channel.Open())

    def publish(
        self, key: str, content: bytes, channel: int = 1, *, mandatory: bool = False
    ) -> None:
        """Publishes one message to the default exchange."""
        method = commands.Basic.Publish(routing_key=key, mandatory=mandatory)
        parts = [
            frame.marshal(method, channel),
            frame.marshal(header.ContentHeader(body_size=len(content)), channel),
        ]
        if content:
            parts.append(frame.marshal(body.ContentBody(content), channel))
        self.connection.receive_data(b"".join(parts), 0.0)
        self.connection.data_to_send()

    def close(self) -> None:
        self.send(0, commands.Connection.Close(200, "bye", 0, 0))
