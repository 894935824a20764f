"""Exchange types that RabbitMQ has by plugins or from version 4 on."""

_CONSISTENT_HASH = {
    "together": "all messages of a key go to one queue, in order",
    "weights": "queues share the keys by their weights",
    "header": "hash-header: the value of that header is the key",
    "property": "hash-property: message_id, correlation_id or timestamp is the key",
    "missing": "messages without the header or property go to one queue",
    "added": "a queue that comes takes its share of the keys and moves nothing else",
    "removed": "a queue that goes leaves its share to the others",
    "bound-twice": "what a second binding of a queue does",
    "bad-weight": "406 a binding key that is no integer, or less than 1",
    "bad-arguments": "406 both arguments, or a property that cannot be hashed",
    "bad-argument-type": "406 an argument that is no string",
    "not-compared": "a redeclare may have other arguments",
    "sender-selected": "a message with CC goes to one queue",
    "restart": "every key finds its queue again after a restart",
}
_MODULUS_HASH = {
    "together": "all messages of a routing key go to one queue",
    "shares": "every binding has an equal share",
}
_RANDOM = {
    "shares": "each message goes to one queue, every binding with an equal chance",
}
_LOCAL_RANDOM = {
    "shares": "each message goes to one queue",
    "bad-key": "406 a binding key that is not empty",
    "bad-destination": "406 an exchange as the destination",
}
_RECENT_HISTORY = {
    "kept": "a queue that is bound gets the last messages, in order, as they were published",
    "length": "x-recent-history-length says how many, 20 without it",
    "no-store": "a message with x-recent-history-no-store true is not kept",
    "bound-again": "a binding that is there gives nothing again, a second one does",
    "unrouted": "what no queue got is kept, and returned or given to the alternate exchange",
    "behind": "messages that come through other exchanges are kept",
    "exchange": "an exchange that is bound routes what is kept",
    "exchange-nowhere": "what it does not route",
    "expiration": "an expiration counts from when a message comes to a queue",
    "bad-length": "406 a length that is no integer from 1 on",
    "restart": "what is kept over a restart",
}
_DELAYED = {
    "due": "a message is routed when it is due, whatever was published before",
    "header": "x-delay is an integer of any width, a number or a text, and arrives negated",
    "no-delay": "without one, with 0 or less, with anything else: at once, as it is",
    "types": "x-delayed-type says how it routes",
    "routed-late": "the bindings of that time count, for copies too",
    "mandatory": "a delayed message reaches nothing now, and is returned",
    "behind": "messages that come through other exchanges are delayed, once",
    "expiration": "an expiration counts from when a message comes to a queue",
    "deleted": "what waits goes with its exchange",
    "bad-type": "406 no x-delayed-type, or itself; 503 one that is unknown",
    "restart": "what waits outlasts a restart, and comes in time",
}
_DEDUPLICATION = {
    "exchange": "of messages with one id one is routed; those without an id all are",
    "argument": "x-message-deduplication on an exchange of another type",
    "queue": "a queue takes no message like one that is in it",
    "window": "a queue remembers ids, also by message id, until it is purged",
    "size": "x-cache-size says how many ids are remembered",
    "ttl": "x-cache-ttl says for how long, of the exchange or of a message",
    "confirm": "a duplicate is confirmed and not returned",
    "refused": "what was returned or refused is not remembered",
    "tx": "messages of a transaction count from its commit on",
    "bad": "406 arguments that are none",
    "restart": "what is remembered lasts with durable exchanges and queues",
}
_ALL = {
    "alternate": "without bindings messages are returned, or go to the alternate exchange",
    "exchange-to-exchange": "exchanges behind them, and they behind exchanges",
}

EXCHANGE_TYPES: dict[str, str] = {
    f"{prefix}:{name}": text
    for prefix, rows in (
        ("consistent-hash", _CONSISTENT_HASH),
        ("modulus-hash", _MODULUS_HASH),
        ("random", _RANDOM),
        ("local-random", _LOCAL_RANDOM),
        ("recent-history", _RECENT_HISTORY),
        ("delayed", _DELAYED),
        ("deduplication", _DEDUPLICATION),
        ("exchange-types", _ALL),
    )
    for name, text in rows.items()
}
