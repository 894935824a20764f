"""Rules beside the errors: negotiation, names, declaring, publishing, consuming, routing."""

_ERRORS = {
    "error-text-cut": "reply text is cut to 255 octets",
    "soft-error-on-channel-0": "a soft error raised on channel 0 closes the connection",
    "after-channel-close-dropped": "after channel.close all but close and close-ok is dropped",
    "after-channel-close-close-answered": "channel.close that crosses the broker's is answered",
    "after-connection-close-dropped": "after connection.close only connection methods are read",
    "channel-error-releases": "unacked messages and consumers are released with channel.close",
}
_NEGOTIATION = {
    "protocol-header-wrong": "another protocol header is answered with AMQP 0 0 9 1 and the end",
    "start-version": "start offers version 0-9",
    "start-mechanisms": "mechanisms are separated by spaces and hold PLAIN and AMQPLAIN",
    "start-locales": "locales hold en_US",
    "server-properties": "product, version, platform, information, copyright, cluster_name",
    "server-capabilities": "the nine capabilities are announced as true",
    "amqplain": "login by AMQPLAIN",
    "handshake-timeout": "a connection that stalls in the handshake is closed",
    "tune-offer": "tune offers channel_max 2047, frame_max 131072, heartbeat 60",
    "tune-lower": "lower values in tune-ok are accepted and kept",
    "frame-max-kept": "the broker cuts bodies to the negotiated frame_max",
    "heartbeat-any-value": "a heartbeat above the offer is accepted",
    "heartbeat-zero": "heartbeat 0 disables both directions",
    "heartbeat-sent": "the broker sends heartbeats when idle",
    "heartbeat-traffic-counts": "any traffic counts as a sign of life",
    "open-ok-empty": "open-ok has empty known-hosts; deprecated fields are accepted",
}
_NAMES = {
    "queue-name-generated": "amq.gen- and 22 url-safe characters",
    "consumer-tag-generated": "amq.ctag- and 22 url-safe characters",
    "names-stripped": "CR and LF are stripped from names on declare, delete and bind",
    "names-utf8": "names up to 255 octets, any UTF-8",
    "amq-redeclared": "existing amq.* exchanges may be redeclared equally, queues only looked up",
    "last-queue-remembered": "empty queue name means the last declared one",
    "bind-empty-key": "empty queue and routing key in bind mean the queue's name twice",
    "default-exchange-routes": "the default exchange reaches every queue by its name",
}
_DECLARING = {
    "unknown-arguments-ignored": "unknown extra arguments may differ",
    "integer-widths-equal": "integer widths of an argument do not matter",
    "queue-type-classic-default": "a missing x-queue-type equals classic",
    "quorum-queue-accepted": "x-queue-type quorum and its arguments are accepted",
    "arguments-of-other-types": "what happens with arguments of another queue type",
    "exclusive-not-durable": "durable of an exclusive queue is not kept",
    "message-count-ready-only": "message_count counts ready messages only",
    "nowait-errors-close": "errors of a nowait declare close the channel all the same",
    "passive-ignores-fields": "passive declare ignores all other fields",
    "dlx-may-be-missing": "a dead-letter exchange need not exist at declare",
    "auto-delete-last-consumer": "auto-delete queue goes with its last consumer",
    "auto-delete-never-consumed": "auto-delete queue without a consumer ever stays",
    "exclusive-before-close-ok": "exclusive queues are gone before connection.close-ok",
    "exclusive-gone-with-socket": "exclusive queues go when the socket just ends",
    "exchange-auto-delete": "auto-delete exchange goes with its last binding",
}
_PUBLISHING = {
    "return-content": "basic.return has 312 NO_ROUTE, exchange, key and full content",
    "return-before-confirm": "the return of a message comes before its confirm",
    "unroutable-acked": "an unroutable message is acked, not nacked",
    "confirm-after-queue-deleted": "a queue deleted meanwhile counts as confirmed",
    "confirm-tags": "confirm tags start at 1 at confirm.select and count every publish",
    "confirm-select-twice": "confirm.select twice is fine and does not reset the count",
    "mandatory-alternate": "no return if the alternate exchange routed it",
    "one-copy-per-queue": "one copy per queue whatever the number of matching bindings",
    "delivery-mode-any": "a delivery mode other than 1 and 2 is accepted",
    "header-kept": "properties reach the consumer octet for octet",
    "sender-selected": "CC and BCC route as well; BCC is removed",
    "publish-check-order": "permission, exchange, internal, expiration, CC, user-id: in that order",
    "body-empty": "a body of zero octets has no body frame",
    "body-many-frames": "a body of many frames arrives whole, however it was cut",
}
_CONSUMING = {
    "consume-ok-before-deliver": "consume-ok comes before the first delivery",
    "cancel-ok-after-deliver": "cancel-ok comes after the last delivery",
    "cancel-unknown-tag": "cancel of an unknown tag is answered with cancel-ok",
    "unacked-survive-cancel": "unacked messages outlive basic.cancel until the channel closes",
    "cancel-notify": "queue deleted: basic.cancel to consumers with the capability",
    "no-cancel-without-capability": "queue deleted: silence without the capability",
    "qos-per-consumer": "qos global=false holds for consumers started after it, each",
    "qos-global": "qos global=true is one limit for the channel",
    "qos-global-live": "qos global=true changes live consumers at once",
    "qos-both": "both limits are enforced",
    "qos-per-consumer-lifts-global": "a later qos global=false lifts the channel's limit",
    "qos-zero": "prefetch 0 is unlimited",
    "qos-get-not-counted": "get does not count on a consumer's limit",
    "qos-no-ack-ignored": "no_ack consumers ignore prefetch",
    "redelivered-requeue": "redelivered is true after requeue",
    "redelivered-channel-closed": "redelivered is true after the channel or connection ended",
    "redelivered-get": "redelivered is true after get and requeue",
    "requeue-position": "a requeued message returns to its old position",
    "round-robin": "ready consumers take turns",
    "consumer-priority": "the highest x-priority is served first",
    "get-shares-tags": "get and deliver share one sequence of delivery tags",
    "get-message-count": "get-ok counts the remaining ready messages",
    "no-local-ignored": "no_local is ignored",
    "recover-requeues": "recover requeue=true requeues all, then recover-ok",
    "recover-async-silent": "recover-async has no answer",
    "order-one-queue": "one publisher's messages keep their order in a queue",
    "exclusive-consumer": "an exclusive consumer is alone on its queue",
    "single-active-consumer": "x-single-active-consumer: one at a time, the next takes over",
}
_EXCHANGES = {
    "direct": "direct exchange routes by equal key",
    "fanout": "fanout exchange routes everything",
    "topic": "topic exchange: * is one word, # any number",
    "headers-all": "headers exchange, x-match all",
    "headers-any": "headers exchange, x-match any",
    "headers-with-x": "headers exchange, all-with-x and any-with-x",
    "alternate": "alternate exchange takes what is not routed",
    "exchange-to-exchange": "exchanges bound to exchanges, also in a circle",
    "predeclared": "amq.direct, amq.fanout, amq.topic, amq.headers, amq.match exist",
}
_REPLY_TO = {
    "reply-to-round-trip": "request and reply through amq.rabbitmq.reply-to",
    "reply-to-declare": "declare of the rewritten name answers 0 messages, 1 consumer, else 404",
    "reply-to-gone-dropped": "a reply to a consumer that is gone is dropped",
}
_NOWAIT = {
    "nowait-consume-tag": "consume with nowait and no tag still has a generated tag",
    "tx-always-answers": "tx, qos, recover, channel and connection methods always answer",
}
_TX = {
    "tx-publish": "publishes of a transaction arrive at commit, not before",
    "tx-rollback-publish": "publishes of a transaction that is rolled back do not arrive",
    "tx-ack": "acks count at commit; rollback keeps the messages unacked",
    "tx-return": "returns of a transaction come at commit, before commit-ok",
    "tx-next": "commit and rollback begin the next transaction",
}
_CELERY = {
    "task-queue": "Celery's task queue, declared by workers and clients",
    "pidbox": "Celery's remote control queues and exchanges",
    "celeryev": "Celery's event queues and exchange",
    "rpc-results": "Celery's rpc:// result queues",
    "qos-live": "prefetch changed while consuming, global=true",
    "native-delay": "Celery's delayed delivery: levels of topic exchanges and queues",
}

STATEMENTS: dict[str, str] = {
    f"{prefix}:{name}": text
    for prefix, rows in (
        ("rule", _ERRORS),
        ("rule", _NEGOTIATION),
        ("rule", _NAMES),
        ("rule", _DECLARING),
        ("rule", _PUBLISHING),
        ("rule", _CONSUMING),
        ("rule", _REPLY_TO),
        ("rule", _NOWAIT),
        ("rule", _TX),
        ("routing", _EXCHANGES),
        ("celery", _CELERY),
    )
    for name, text in rows.items()
}

LEFT_OUT: dict[str, str] = {
    "rule:dead-lettering": "dead-lettering comes later; its arguments are checked at declare",
    "rule:ttl-length-priority": "TTL, length limits and priorities come later",
    "rule:confirm-nack": "needs a queue that rejects: length limits, a later feature",
    "rule:alarms": "connection.blocked and unblocked need an alarm; a test of the broker's own",
    "rule:connection-secure": "no mechanism here sends a challenge",
}
