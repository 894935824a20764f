from exchanges import FanoutExchange


def exchange(*destinations: str) -> FanoutExchange[str]:
    fanout: FanoutExchange[str] = FanoutExchange()
    for destination in destinations:
        fanout.bind("", destination, {})
    return fanout


def test_a_message_goes_to_every_queue_in_order_of_binding_whatever_its_key() -> None:
    fanout = exchange("z", "a", "m")
    assert list(fanout.route("any.key", {"any": "header"})) == ["z", "a", "m"]


def test_a_fanout_exchange_without_bindings_routes_nowhere() -> None:
    assert list(exchange().route("", {})) == []


def test_a_queue_bound_with_two_keys_gets_a_message_once() -> None:
    fanout = exchange("a")
    assert fanout.bind("other", "a", {})
    assert list(fanout.route("", {})) == ["a"]


def test_a_queue_stays_until_its_last_binding_is_gone() -> None:
    fanout = exchange("a")
    fanout.bind("", "a", {"region": "eu"})
    assert fanout.unbind("", "a", {})
    assert list(fanout.route("", {})) == ["a"]
    assert fanout.unbind("", "a", {"region": "eu"})
    assert list(fanout.route("", {})) == []
