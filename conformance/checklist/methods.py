"""Every method, in each direction that exists.

`method:X` is the direction that its name suggests; where both peers may send it, `method:X` is
the client's and `method:X.server` the broker's. `nowait:X` is the form without an answer.
"""

from conformance.methods import LAYOUTS

_SENT_BY_BOTH = (
    "connection.close",
    "connection.close-ok",
    "channel.close",
    "channel.close-ok",
    "basic.cancel",
    "basic.ack",
    "basic.nack",
)
_NO_CHALLENGE = "no mechanism here sends a challenge"
_NOT_ASKED = {
    "connection.secure": _NO_CHALLENGE,
    "connection.secure-ok": _NO_CHALLENGE,
}
_NOWAIT = (
    "exchange.declare",
    "exchange.delete",
    "exchange.bind",
    "exchange.unbind",
    "queue.declare",
    "queue.bind",
    "queue.delete",
    "queue.purge",
    "basic.consume",
    "basic.cancel",
    "confirm.select",
)

METHODS: dict[str, str] = {
    **{f"method:{name}": f"{name} works" for name in LAYOUTS if name not in _NOT_ASKED},
    **{f"method:{name}.server": f"{name} sent by the broker" for name in _SENT_BY_BOTH},
    **{f"nowait:{name}": f"{name} with nowait is not answered" for name in _NOWAIT},
}

LEFT_OUT: dict[str, str] = {
    **{f"method:{name}": reason for name, reason in _NOT_ASKED.items()},
}
