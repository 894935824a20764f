from exchanges import DirectExchange


def exchange(*bindings: tuple[str, str]) -> DirectExchange[str]:
    direct: DirectExchange[str] = DirectExchange()
    for key, destination in bindings:
        direct.bind(key, destination, {})
    return direct


def test_a_message_goes_to_every_queue_bound_with_its_key_in_order_of_binding() -> None:
    direct = exchange(("red", "z"), ("red", "a"), ("blue", "b"), ("red", "m"))
    assert list(direct.route("red", {})) == ["z", "a", "m"]


def test_a_message_with_an_unbound_key_goes_nowhere() -> None:
    assert list(exchange(("red", "a")).route("redder", {})) == []


def test_a_queue_bound_with_two_keys_gets_messages_of_both() -> None:
    direct = exchange(("red", "a"), ("blue", "a"))
    assert [list(direct.route(key, {})) for key in ("red", "blue")] == [["a"], ["a"]]


def test_the_empty_key_is_a_key_like_any_other() -> None:
    direct = exchange(("", "a"), ("red", "b"))
    assert list(direct.route("", {})) == ["a"]


def test_wildcards_mean_nothing_to_a_direct_exchange() -> None:
    direct = exchange(("#", "a"), ("*", "b"))
    assert list(direct.route("red", {})) == []
    assert list(direct.route("#", {})) == ["a"]


def test_an_unbound_queue_gets_nothing_more_but_the_others_do() -> None:
    direct = exchange(("red", "a"), ("red", "b"))
    assert direct.unbind("red", "a", {})
    assert list(direct.route("red", {})) == ["b"]
