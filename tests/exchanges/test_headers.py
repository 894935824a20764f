import pytest

from exchanges import BindingArgumentError, HeadersExchange
from exchanges.base import Headers

MODES = ("all", "any", "all-with-x", "any-with-x")


def modes_that_match(arguments: Headers, headers: Headers) -> set[str]:
    """The values of x-match with which a binding matches a message."""
    exchange = HeadersExchange[str]()
    for mode in MODES:
        exchange.bind("", mode, {**arguments, "x-match": mode})
    return set(exchange.route("key", headers))


# Observed on RabbitMQ 3.10.8: arguments, headers, values of x-match that match.
MATCHES: list[tuple[Headers, Headers, set[str]]] = [
    ({}, {}, {"all", "all-with-x"}),
    ({}, {"a": 1}, {"all", "all-with-x"}),
    ({"a": 1}, {}, set()),
    ({"a": 1}, {"a": 1}, set(MODES)),
    ({"a": 1}, {"a": 1, "b": 2}, set(MODES)),
    ({"a": 1}, {"a": 2}, set()),
    ({"a": 1}, {"A": 1}, set()),
    ({"a": 1, "b": 2}, {"a": 1}, {"any", "any-with-x"}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 3}, {"any", "any-with-x"}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, set(MODES)),
    ({"a": None}, {"a": 5}, set(MODES)),
    ({"a": None}, {"a": None}, set(MODES)),
    ({"a": None}, {}, set()),
    ({"a": 5}, {"a": None}, set()),
    ({"a": None, "b": 2}, {"a": 5}, {"any", "any-with-x"}),
    ({"x-a": 1}, {}, {"all"}),
    ({"x-a": 1}, {"x-a": 1}, {"all", "all-with-x", "any-with-x"}),
    ({"x-a": 1, "b": 1}, {"b": 1}, {"all", "any", "any-with-x"}),
    ({"x-a": 1, "b": 1}, {"x-a": 1}, {"any-with-x"}),
    ({"x-a": 1, "b": 1}, {"x-a": 1, "b": 1}, set(MODES)),
    ({"X-a": 1}, {}, set()),
    ({"xa": 1}, {}, set()),
    ({}, {"x-match": "any"}, {"all", "all-with-x"}),
    ({"a": ["x"]}, {"a": ["x"]}, set(MODES)),
    ({"a": ["x"]}, {"a": ["y"]}, set()),
]


@pytest.mark.parametrize(("arguments", "headers", "matching"), MATCHES)
def test_arguments_match_headers_as_in_rabbitmq(
    arguments: Headers, headers: Headers, matching: set[str]
) -> None:
    assert modes_that_match(arguments, headers) == matching


def test_without_x_match_all_arguments_must_match() -> None:
    exchange = HeadersExchange[str]()
    exchange.bind("", "queue", {"a": 1, "b": 2})
    assert [list(exchange.route("", h)) for h in ({"a": 1}, {"a": 1, "b": 2})] == [[], ["queue"]]


def test_values_of_different_types_differ_when_given_as_pairs() -> None:
    arguments = {"a": ("int", 1)}
    assert modes_that_match(arguments, {"a": ("bool", True)}) == set()
    assert modes_that_match(arguments, {"a": ("int", 1)}) == set(MODES)


def test_a_void_argument_given_as_a_pair_matches_any_value() -> None:
    assert modes_that_match({"a": ("void", None)}, {"a": ("longstr", "b")}) == set(MODES)


@pytest.mark.parametrize("mode", MODES)
def test_x_match_may_come_with_its_type(mode: str) -> None:
    exchange = HeadersExchange[str]()
    assert exchange.bind("", "queue", {"x-match": ("longstr", mode), "a": 1})
    assert list(exchange.route("", {"a": 1})) == ["queue"]


def test_a_queue_gets_a_message_once_and_queues_come_in_order_of_binding() -> None:
    exchange = HeadersExchange[str]()
    for destination, name in [("z", "a"), ("m", "a"), ("z", "b"), ("a", "b")]:
        exchange.bind("", destination, {name: 1})
    assert list(exchange.route("", {"a": 1, "b": 1})) == ["z", "m", "a"]


def test_the_binding_key_plays_no_part_in_routing() -> None:
    exchange = HeadersExchange[str]()
    exchange.bind("red", "queue", {"a": 1})
    assert list(exchange.route("blue", {"a": 1})) == ["queue"]


def test_only_a_headers_exchange_asks_for_headers() -> None:
    from exchanges import EXCHANGE_TYPES

    assert {name for name, kind in EXCHANGE_TYPES.items() if kind.needs_headers} == {"headers"}


# Observed on RabbitMQ 3.10.8, which prints octets that are no text of ISO 8859-1 as numbers.
BAD_VALUES = [
    ("foo", '<<"foo">>'),
    ("All", '<<"All">>'),
    ("", "<<>>"),
    ("é", '<<"é">>'),
    ("Ñ", "<<195,145>>"),
    ('a"b\\c\n', '<<"a\\"b\\\\c\\n">>'),
    ("\x01\x02", "<<1,2>>"),
]


@pytest.mark.parametrize(("value", "text"), BAD_VALUES)
@pytest.mark.parametrize("typed", [False, True])
def test_an_unknown_x_match_is_refused_in_rabbitmqs_words(
    value: str, text: str, typed: bool
) -> None:
    exchange = HeadersExchange[str]()
    with pytest.raises(BindingArgumentError) as raised:
        exchange.bind("", "queue", {"x-match": ("longstr", value) if typed else value})
    assert str(raised.value) == (
        f"Invalid x-match field value {text}; expected all, any, all-with-x, or any-with-x"
    )


# Observed on RabbitMQ 3.10.8.
BAD_TYPES = [
    (("signedint", 5), "signedint (value 5)"),
    (("bool", True), "bool (value true)"),
    (("void", None), "void (value undefined)"),
    (("binary", b"all"), 'binary (value <<"all">>)'),
    (("timestamp", 1577836800), "timestamp (value 1577836800)"),
    (("decimal", (2, 314)), "decimal (value {2,314})"),
    (("double", 1.5), "double (value 1.5)"),
    (("array", []), "array (value [])"),
    (
        ("array", [("longstr", "a"), ("signedint", 1)]),
        'array (value [{longstr,<<"a">>},{signedint,1}])',
    ),
    (("table", {"k": ("longstr", "v")}), 'table (value [{<<"k">>,longstr,<<"v">>}])'),
    (5, "signedint (value 5)"),
    (None, "void (value undefined)"),
    (["a"], 'array (value [{longstr,<<"a">>}])'),
]


@pytest.mark.parametrize(("value", "text"), BAD_TYPES)
def test_an_x_match_of_another_type_is_refused_in_rabbitmqs_words(value: object, text: str) -> None:
    exchange = HeadersExchange[str]()
    with pytest.raises(BindingArgumentError) as raised:
        exchange.bind("", "queue", {"x-match": value})
    assert str(raised.value) == f"Invalid x-match field type {text}; expected longstr"


def test_a_refused_binding_changes_nothing() -> None:
    exchange = HeadersExchange[str]()
    exchange.bind("", "queue", {"a": 1})
    with pytest.raises(BindingArgumentError):
        exchange.bind("", "queue", {"a": 1, "x-match": "some"})
    assert [binding.arguments for binding in exchange.bindings()] == [{"a": 1}]
    assert exchange.unbind_destination("queue") == 1


def test_unbinding_with_a_bad_x_match_is_no_error() -> None:
    assert not HeadersExchange[str]().unbind("", "queue", {"x-match": "some"})


def test_headers_that_are_compared_are_those_of_the_bindings_there_are() -> None:
    exchange = HeadersExchange[str]()
    names = ("a", "b", "c", "x-d", "x-match")

    def compared() -> set[str]:
        return {name for name in names if name in exchange.compared}

    arguments = {"a": 1, "b": None, "x-d": 1}
    exchange.bind("", "q", arguments)
    assert compared() == {"a", "b"}
    exchange.bind("", "q", {"b": 2, "x-d": 1, "x-match": "any-with-x"})
    assert compared() == {"a", "b", "x-d"}
    exchange.unbind("", "q", arguments)
    assert compared() == {"b", "x-d"}
    exchange.unbind("", "q", {"b": 2, "x-d": 1, "x-match": "any-with-x"})
    assert compared() == set()
