"""What queues do on their own account: expiry, length limits, dead letters, priorities, turns."""

_EXPIRY = {
    "queue-ttl": "x-message-ttl: messages expire after it, and not before",
    "message-ttl": "expiration: a message expires after it, and not before",
    "lower": "of x-message-ttl and expiration the lower one holds",
    "zero": "TTL 0: delivered at once to a consumer that is ready, or expired",
    "unacked": "what is unacked does not expire",
    "requeued": "a requeued message keeps its deadline",
    "never-delivered": "what has expired is not delivered, by get or to consumers",
    "not-counted": "what has expired counts nowhere",
    "middle": "a message expires wherever it sits in the queue",
    "order": "what expires leaves in order, and leaves the order of others alone",
    "copies": "each queue has its own copy, with a deadline of its own",
    "confirmed": "what expires at once is confirmed, and is not returned",
    "transaction": "time begins at commit",
    "restart": "deadlines hold across a restart",
    "no-dead-letters": "purge and delete, and the end of an unused queue, make no dead letters",
}
_QUEUE_EXPIRY = {
    "unused": "x-expires: a queue that nobody uses goes, with its messages and bindings",
    "used": "consumers keep it; get and declares, passive ones too, start its time anew",
    "publish": "publishing is no use",
    "again": "its name is free afterwards",
    "restart": "its time begins anew with a restart",
}
_LENGTH = {
    "drop-head": "x-max-length: the oldest go",
    "bytes": "x-max-length-bytes: octets of bodies count, headers do not",
    "both": "with both limits either one holds",
    "zero": "limit 0: nothing stays",
    "ready-only": "unacked messages do not count",
    "requeued": "what is requeued above the limit is dropped from the head as well",
    "reject": "x-overflow reject-publish: basic.nack for what does not fit",
    "reject-silent": "without confirms it is dropped in silence",
    "reject-others": "other queues get it all the same",
    "reject-dlx": "reject-publish-dlx: what does not fit is dead-lettered, and nacked",
    "confirmed": "drop-head confirms everything, and nothing is returned",
    "burst": "what a ready consumer takes never was in the queue",
    "room": "what was taken or expired makes room",
    "restart": "limits hold after a restart",
}
_DEAD = {
    "rejected": "reject and nack without requeue, by one or many, in order",
    "expired": "what expired, with expiration moved to original-expiration",
    "maxlen": "what did not fit",
    "delivery-limit": "what was delivered too often",
    "x-death": "x-death: fields, types and order",
    "count": "the same again counts, keeps its first time and moves to the front",
    "first-death": "x-first-death-reason, -queue and -exchange are set once",
    "last-death": "x-last-death-reason, -queue and -exchange with every death (3.13)",
    "client-history": "an x-death header that a client sent is counted on",
    "bad-history": "a header named x-death that is none does no harm",
    "key": "x-dead-letter-routing-key replaces the keys",
    "keys-kept": "without it the message keeps its keys, CC and BCC among them",
    "content": "body, properties and other headers are as they were sent",
    "missing-exchange": "without the exchange the message is dropped",
    "late-exchange": "the exchange is looked up at each death",
    "routing": "dead letters are routed as other messages, by any type of exchange",
    "unroutable": "what is routed nowhere is dropped, and nobody is told",
    "cycle": "a cycle without a rejection ends",
    "rejected-cycle": "a cycle with a rejection goes on",
    "chain": "a dead letter can die again",
    "transaction": "a rejection in a transaction counts at commit",
    "not-dead": "requeue, purge, delete, closed channels and cancelled consumers kill nothing",
    "redelivered": "a dead letter is new in its queue",
    "restart": "dead letters and their history survive a restart",
    "at-least-once": "x-dead-letter-strategy at-least-once",
}
_DELIVERY_LIMIT = {
    "count": "x-delivery-count: missing at first, then 1, 2, ...",
    "limit": "x-delivery-limit: dead-lettered or dropped after it",
    "returns": "every way of returning a message counts",
    "none": "without a limit a message returns for ever",
    "classic": "the same on classic queues",
    "restart": "counts hold across a restart",
}
_PRIORITY = {
    "order": "x-max-priority: higher ones first, first come first served within one",
    "range": "above the maximum is the maximum, missing is 0",
    "requeued": "a requeued message returns to its place within its priority",
    "ignored": "without x-max-priority the property has no effect",
    "expiry": "messages expire whatever their priority",
    "limit": "drop-head drops the lowest first",
    "dead": "dead letters keep their priority",
    "restart": "priorities hold after a restart",
}

QUEUES: dict[str, str] = {
    f"{prefix}:{name}": text
    for prefix, rows in (
        ("expiry", _EXPIRY),
        ("queue-expiry", _QUEUE_EXPIRY),
        ("length", _LENGTH),
        ("dead", _DEAD),
        ("delivery-limit", _DELIVERY_LIMIT),
        ("priority", _PRIORITY),
    )
    for name, text in rows.items()
}
