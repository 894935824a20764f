"""Methods off the hot path: equal to pamqp, and open to what RabbitMQ takes beyond it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import AMQPError, ReplyCode
from broker.wire.methods import (
    Method,
    commands,
    decode_method,
    encode_method,
    make,
    method_name,
    shortstr,
)
from broker.wire.table import Table
from tests.wire.profiles import examples
from tests.wire.strategies import (
    METHOD_CLASSES,
    any_text,
    arguments_of,
    as_pamqp_argument,
    methods,
    pamqp_method,
    tables,
)

Queue = commands.Queue
Basic = commands.Basic


def arguments_in(method: Method) -> dict[str, Any]:
    return {name: getattr(method, name) for name in type(method).__slots__}


@pytest.mark.parametrize("cls", METHOD_CLASSES, ids=lambda cls: str(cls.name))
def test_every_method_is_encoded_as_pamqp_does_and_decoded_to_the_same(cls: type[Method]) -> None:
    @examples(8)
    @given(arguments_of(cls), st.integers(0, 65535))
    def check(arguments: dict[str, Any], channel: int) -> None:
        octets = encode_method(channel, make(cls, **arguments))
        payload = pamqp_method(cls, arguments).marshal()
        head = b"\x01" + channel.to_bytes(2, "big") + (len(payload) + 4).to_bytes(4, "big")
        assert octets == head + cls.index.to_bytes(4, "big") + payload + b"\xce"
        decoded = decode_method(octets[7:-1])
        assert type(decoded) is cls
        assert arguments_in(decoded) == arguments

    check()


@examples(100)
@given(methods)
def test_pamqp_decodes_what_is_encoded_to_the_same_values(
    generated: tuple[type[Method], dict[str, Any]],
) -> None:
    cls, arguments = generated
    method = cls.__new__(cls)
    method.unmarshal(encode_method(1, make(cls, **arguments))[11:-1])
    for name, value in arguments.items():
        assert getattr(method, name) == as_pamqp_argument(cls.amqp_type(name), value)


@examples(50)
@given(tables)
def test_tables_of_every_wire_type_pass_through_a_method(arguments: Table) -> None:
    declare = make(
        Queue.Declare,
        ticket=0,
        queue="q",
        passive=False,
        durable=True,
        exclusive=False,
        auto_delete=True,
        nowait=False,
        arguments=arguments,
    )
    decoded = decode_method(encode_method(1, declare)[7:-1])
    assert arguments_in(decoded) == arguments_in(declare)


@pytest.mark.parametrize("name", ["é", "a=b", "x" * 255, "(*)", "", "\x00\r\n", "漢" * 85])
def test_names_that_pamqp_refuses_are_taken(name: str) -> None:
    payload = b"\x00\x32\x00\x0a\x00\x00" + shortstr(name) + b"\x00\x00\x00\x00\x00"
    method = decode_method(payload)
    assert isinstance(method, Queue.Declare)
    assert method.queue == name
    assert encode_method(1, method)[7:-1] == payload


@pytest.mark.parametrize(
    ("payload", "class_id", "method_id"),
    [
        (b"\x00\x32\x00\x63", 50, 99),
        (b"\x00\x00\x00\x00", 0, 0),
        (b"\xff\xff\xff\xff????", 65535, 65535),
        (b"\x00\x32\x00", 0, 0x3200),
        (b"", 0, 0),
    ],
)
def test_unknown_method_is_not_implemented_and_named(
    payload: bytes, class_id: int, method_id: int
) -> None:
    with pytest.raises(AMQPError) as caught:
        decode_method(payload)
    assert caught.value.code is ReplyCode.NOT_IMPLEMENTED
    assert caught.value.explanation == f"unknown method {class_id}.{method_id}"
    assert caught.value.method_index == class_id << 16 | method_id


@examples(100)
@given(methods, st.data())
def test_cut_off_method_is_a_frame_error(
    generated: tuple[type[Method], dict[str, Any]], data: st.DataObject
) -> None:
    cls, arguments = generated
    payload = encode_method(1, make(cls, **arguments))[7:-1]
    if len(payload) == 4:
        return
    cut = payload[: data.draw(st.integers(4, len(payload) - 1))]
    with pytest.raises(AMQPError) as caught:
        decode_method(cut)
    assert caught.value.code is ReplyCode.FRAME_ERROR
    assert caught.value.method_index == cls.index
    assert caught.value.explanation.startswith("cannot decode ")


def test_what_cannot_be_decoded_is_shown_but_for_what_belongs_to_a_login() -> None:
    with pytest.raises(AMQPError) as caught:
        decode_method(b"\x00\x32\x00\x0a\x00\x07")
    assert caught.value.explanation == "cannot decode <<0,7>>"
    with pytest.raises(AMQPError) as caught:
        decode_method(b"\x00\x0a\x00\x0b\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\xff\x00u\x00secret")
    assert caught.value.explanation == "cannot decode the method's fields"


@examples(60)
@given(methods, st.binary(min_size=1, max_size=4))
def test_octets_behind_the_arguments_are_a_frame_error(
    generated: tuple[type[Method], dict[str, Any]], rest: bytes
) -> None:
    cls, arguments = generated
    payload = encode_method(1, make(cls, **arguments))[7:-1]
    with pytest.raises(AMQPError) as caught:
        decode_method(payload + rest)
    assert (caught.value.code, caught.value.method_index) == (ReplyCode.FRAME_ERROR, cls.index)


@examples(200)
@given(st.sampled_from(METHOD_CLASSES), st.binary(max_size=60))
def test_any_octets_as_arguments_give_a_method_or_an_amqp_error(
    cls: type[Method], octets: bytes
) -> None:
    try:
        method = decode_method(cls.index.to_bytes(4, "big") + octets)
    except AMQPError as error:
        assert error.code is ReplyCode.FRAME_ERROR  # noqa: PT017
        assert error.method_index in (0, cls.index)  # noqa: PT017
    else:
        # What was understood can be said again; bits beyond the known ones are lost.
        again = decode_method(encode_method(1, method)[7:-1])
        assert repr(arguments_in(again)) == repr(arguments_in(method))


def test_name_that_is_not_utf8_is_malformed() -> None:
    payload = b"\x00\x32\x00\x0a\x00\x00" + b"\x02\xc3\x28" + b"\x00\x00\x00\x00\x00"
    with pytest.raises(AMQPError) as caught:
        decode_method(payload)
    assert caught.value.code is ReplyCode.FRAME_ERROR
    assert caught.value.explanation == "Malformed UTF-8 in shortstr"
    assert caught.value.method_index == 0


@examples(50)
@given(any_text, any_text)
def test_address_of_a_message_may_be_any_octets(exchange: str, key: str) -> None:
    arguments = {"ticket": 0, "exchange": exchange, "routing_key": key}
    method = make(Basic.Publish, **arguments, mandatory=False, immediate=True)
    decoded = decode_method(encode_method(1, method)[7:-1])
    assert isinstance(decoded, Basic.Publish)
    assert (decoded.exchange, decoded.routing_key) == (exchange, key)


def test_delivery_tag_has_64_bits() -> None:
    payload = b"\x00\x3c\x00\x50" + b"\xff" * 8 + b"\x00"
    method = decode_method(payload)
    assert isinstance(method, Basic.Ack)
    assert method.delivery_tag == 2**64 - 1
    assert encode_method(1, method)[7:-1] == payload


def test_short_string_above_255_octets_is_refused() -> None:
    assert shortstr("é" * 127) == b"\xfe" + "é".encode() * 127
    with pytest.raises(ValueError, match="256"):
        shortstr("é" * 128)


def test_method_names_are_those_of_the_spec() -> None:
    assert method_name(0x0032000A) == "queue.declare"
    assert method_name(0x001E000A) == "access.request"
    assert method_name(0x00320063) == "50.99"
