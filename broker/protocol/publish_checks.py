"""What the properties of a publish say to the broker: checked as RabbitMQ does, with its texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from broker.core.arguments import check_expiry
from broker.core.message import Message, header_of, with_time
from broker.core.reply import REPLY_TO_NAME
from broker.errors import AMQPError, ReplyCode
from broker.protocol.assembly import PUBLISH
from broker.wire import properties
from broker.wire.frames import CONTENT_HEADER
from broker.wire.methods import shortstr
from broker.wire.table import Field, Table
from exchanges.erlang import erlang_string

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


_SPECIAL = properties.EXPIRATION | properties.USER_ID


def is_special(flags: int, header: bytes) -> bool:
    """Whether a message has properties that publishing has to look at. `header` is its header
    frame, or anything that contains it."""
    if flags & _SPECIAL:
        return True
    if flags & properties.HEADERS and (b"\x02CC" in header or b"\x03BCC" in header):
        return True
    return bool(flags & properties.REPLY_TO) and b"amq.rabbitmq.reply-to" in header


def without_special(channel: Channel, message: Message, flags: int) -> Message | None:
    """A message whose properties say nothing to the broker, as it is; one of which they say the
    expiration and no more, with that; None for all others. Raises what is wrong with the
    expiration."""
    header = header_of(message)
    if not is_special(flags, header):
        channel.shapes.learn(header, CONTENT_HEADER.size, len(header) - 1, flags)
        return message
    others = flags & ~properties.EXPIRATION
    if others == flags or channel.transaction is not None or is_special(others, header):
        return None
    content, header_size, origin, framing = message
    now = channel.connection.broker.timers.now
    return content, header_size, with_time(origin, now, expiration_of(header)), framing


def check_and_edit(channel: Channel, header: bytes) -> bytes:
    """The header frame as consumers get it: BCC cut out, direct reply-to made an address."""
    flags = properties.flags_of(header)
    edited = header
    if flags & properties.REPLY_TO:
        reply_to = properties.text_property(header, properties.REPLY_TO)
        if reply_to == REPLY_TO_NAME:
            token = channel.reply_token
            if token is None:
                raise _refused("fast reply consumer does not exist")
            edited = properties.replace_property(
                header, properties.REPLY_TO, shortstr(f"{REPLY_TO_NAME}.{token}")
            )
    if flags & properties.USER_ID:
        _check_user_id(channel, properties.text_property(header, properties.USER_ID) or "")
    if flags & properties.EXPIRATION:
        expiration_of(header)
    if flags & properties.HEADERS and "BCC" in properties.headers_table(header):
        edited = properties.without_header(edited, "BCC")
    return edited


def _refused(text: str) -> AMQPError:
    return AMQPError(ReplyCode.PRECONDITION_FAILED, text, PUBLISH)


def expiration_of(header: bytes) -> int:
    """The expiration in this header frame, in milliseconds. Raises what is wrong with it, with the
    texts of rabbit_basic:parse_expiration/1."""
    text = properties.text_property(header, properties.EXPIRATION) or ""
    number = re.match(r"[+-]?[0-9]+", text)
    if number is None:
        raise _refused(f"invalid expiration '{text}': no_integer")
    if number.end() < len(text):
        rest = erlang_string(text[number.end() :])
        raise _refused(f"invalid expiration '{text}': {{leftover_string,{rest}}}")
    milliseconds = int(text)
    wrong = check_expiry(milliseconds)
    if wrong:
        raise _refused(f"invalid expiration '{text}': {wrong}")
    return milliseconds


def _check_user_id(channel: Channel, claimed: str) -> None:
    user = channel.connection.user
    if claimed != user.name and "impersonator" not in user.tags:
        raise _refused(
            f"user_id property set to '{claimed}' but authenticated user was '{user.name}'"
        )


def sender_keys(header: bytes) -> list[str]:
    """The further routing keys in CC and BCC (RabbitMQ, "Sender-selected Distribution")."""
    headers: Table = properties.headers_table(header)
    keys: list[str] = []
    for name in ("CC", "BCC"):
        field = headers.get(name)
        if field is None:
            continue
        if field.type != "array":
            raise _refused(
                f'invalid message: {{unacceptable_type_in_header,"{name}",{field.type}}}'
            )
        items = cast("list[Field]", field.value)
        keys += [str(item.value) for item in items if item.type == "longstr"]
    return keys
