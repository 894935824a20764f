"""Values as RabbitMQ writes them in reply texts: Erlang terms, as ``~p`` prints them."""

from collections.abc import Iterable, Mapping

_ESCAPES = {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord("\v"): "\\v",
    ord("\b"): "\\b",
    ord("\f"): "\\f",
    ord("\x1b"): "\\e",
}
# The octets that stand for a printable character of ISO 8859-1.
_PRINTABLE = {*_ESCAPES, *range(0x20, 0x7F), *range(0xA0, 0x100)}

_TYPE_NAMES: dict[type, str] = {
    str: "longstr",
    bool: "bool",
    int: "signedint",
    float: "double",
    bytes: "binary",
    list: "array",
    dict: "table",
    type(None): "void",
}


def typed(value: object) -> tuple[str, object]:
    """A field value as a pair ``(AMQP type name, value)``, which it may be already."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return value[0], value[1]
    return _TYPE_NAMES.get(type(value), type(value).__name__), value


def erlang_term(value: object) -> str:
    """The text of a value, given without its AMQP type; values nested in it may have theirs."""
    if value is None:
        return "undefined"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _binary(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bytes):
        return _binary(value)
    if isinstance(value, Mapping):
        fields = ((name, *typed(item)) for name, item in value.items())
        return _list(
            f"{{{erlang_term(name)},{type_name},{erlang_term(item)}}}"
            for name, type_name, item in fields
        )
    if isinstance(value, list):
        items = map(typed, value)
        return _list(f"{{{type_name},{erlang_term(item)}}}" for type_name, item in items)
    if isinstance(value, tuple):
        return "{" + ",".join(map(erlang_term, value)) + "}"
    return str(value)


def erlang_string(text: str) -> str:
    """A text as ``~p`` prints a string: in double quotes, with escapes."""
    return f'"{text.translate(_ESCAPES)}"'


def _binary(octets: bytes) -> str:
    if octets and _PRINTABLE.issuperset(octets):
        text = octets.decode("utf-8", "replace").translate(_ESCAPES)
        return f'<<"{text}">>'
    return f"<<{','.join(map(str, octets))}>>"


def _list(items: Iterable[str]) -> str:
    return f"[{','.join(items)}]"
