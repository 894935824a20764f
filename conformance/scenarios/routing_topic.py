"""Topic exchanges."""

from conformance.registry import scenario
from conformance.routing import bound_queue, check_routes
from conformance.session import Session

# Binding keys and the routing keys, out of KEYS and in their order, that they match.
KEYS = ["", ".", "a", "b", "a.", ".a", "a.b", "a..b", "a.b.c", "a.b.b.c", "b.a", "aa.b", "*", "#"]
MATCHES = {
    "": [""],
    "a": ["a"],
    "a.b": ["a.b"],
    "*": ["a", "b", "*", "#"],
    "#": KEYS,
    "*.*": [".", "a.", ".a", "a.b", "b.a", "aa.b"],
    "a.*": ["a.", "a.b"],
    "*.a": [".a", "b.a"],
    "a.#": ["a", "a.", "a.b", "a..b", "a.b.c", "a.b.b.c"],
    "#.c": ["a.b.c", "a.b.b.c"],
    "#.b": ["b", "a.b", "a..b", "aa.b"],
    "a.#.c": ["a.b.c", "a.b.b.c"],
    "a.*.c": ["a.b.c"],
    "a.#.b.#": ["a.b", "a..b", "a.b.c", "a.b.b.c"],
    "#.#": KEYS,
    "*.#": [key for key in KEYS if key],
    "#.*": [key for key in KEYS if key],
    "*.#.*": [key for key in KEYS if "." in key],
    "#.a.#": ["a", "a.", ".a", "a.b", "a..b", "a.b.c", "a.b.b.c", "b.a"],
    "a*": [],
    "#a": [],
    "a.": ["a."],
    ".": ["."],
    "..": [],
    "a..b": ["a..b"],
}


@scenario("topic.patterns", covers=["routing:topic"])
def star_is_one_word_and_hash_any_number(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    queues = {bound_queue(s, channel, exchange, pattern): pattern for pattern in MATCHES}
    expected = {queue: MATCHES[pattern] for queue, pattern in queues.items()}
    check_routes(channel, exchange, KEYS, expected)


@scenario("topic.one-copy", covers=["routing:topic", "rule:one-copy-per-queue"])
def queue_with_many_matching_patterns_gets_one_copy(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    queue = bound_queue(s, channel, exchange, "a.b", "a.*", "#", "#.#", "*.b", "a.#")
    check_routes(channel, exchange, ["a.b", "x"], {queue: ["a.b", "x"]})


@scenario("topic.unbind", covers=["routing:topic", "method:queue.unbind"])
def unbinding_one_pattern_leaves_the_others(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    queue = bound_queue(s, channel, exchange, "a.*", "a.#", "#.b")
    other = bound_queue(s, channel, exchange, "a.#")
    keys = ["a", "a.b", "a.c", "x.b"]
    check_routes(channel, exchange, keys, {queue: keys, other: keys[:3]})
    for pattern, left in (
        ("a.#", ["a.b", "a.c", "x.b"]),
        ("a.*", ["a.b", "x.b"]),
        ("a.*", ["a.b", "x.b"]),
        ("#.b", []),
    ):
        channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key=pattern)
        check_routes(channel, exchange, keys, {queue: left, other: keys[:3]})


@scenario("topic.long-keys", covers=["routing:topic"])
def keys_of_255_octets_and_many_words(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    words = ".".join(["w"] * 128)
    long_word = "é" * 127
    everything = bound_queue(s, channel, exchange, "#")
    all_words = bound_queue(s, channel, exchange, ".".join(["*"] * 128))
    ends = bound_queue(s, channel, exchange, "w.#.w.#.w")
    single = bound_queue(s, channel, exchange, "*")
    check_routes(
        channel,
        exchange,
        [words, long_word],
        {everything: [words, long_word], all_words: [words], ends: [words], single: [long_word]},
    )


@scenario("topic.many-hashes", covers=["routing:topic"])
def pattern_of_many_hashes_is_accepted_and_matches(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    queue = bound_queue(s, channel, exchange, "#.a.#.b.#.c.#")
    keys = ["a.b.c", "x.a.x.b.x.c.x", "a.b", "c.b.a"]
    check_routes(channel, exchange, keys, {queue: keys[:2]})
