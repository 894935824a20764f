"""What clients cannot see of a broker, and the observer has to know."""

from __future__ import annotations

from typing import Any

from broker.core.message import NUMBER
from broker.core.reading import is_bare
from tests.durable.peer import Peer
from tests.durable.site import DurableSite


def is_out_of_reach(site: DurableSite, name: str) -> bool:
    """Whether the next messages were stored anew when their log failed: only a start finds them."""
    queue = site.vhost.queues[name]
    places = []
    if queue.returned and is_bare(queue.returned[0]):
        found = [(store, store.stored.find(queue.returned[0][NUMBER])) for store in queue.stores]
        places = [(store, run) for store, run in found if run is not None]
    elif queue.paged is not None and queue.paged.count:
        store, runs = queue.paged.next_runs(1)
        places = [(store, runs[0])]
    return any(
        store.journal.has_failed and run.position > store.journal.durable for store, run in places
    )


def state_of(site: DurableSite) -> Any:
    """What a start made of the log."""
    journal = site.journal
    return (
        [
            (queue.name, queue.messages_ready, queue.next_number)
            + (
                (lasting.id, lasting.stored.count, lasting.delivered_to, lasting.returns)
                if (lasting := queue.lasting)
                else ()
            )
            for queue in site.vhost.queues.values()
        ],
        list(site.vhost.exchanges),
        dict(journal.definitions),
        (journal.batches.live_bytes, journal.batches.total_bytes, site.broker.next_queue_id),
    )


def bare_tags(peer: Peer) -> set[tuple[int, int]]:
    """What a client holds, by channel and tag, and the broker remembers without its content."""
    found = set()
    for number, channel in peer.client.connection.channels.items():
        unacked = channel.unacked
        entries = dict(enumerate(unacked._entries, unacked._base))
        entries |= {tag: entry for tag, (_, entry) in unacked._old.items()}
        found |= {(number, tag) for tag, entry in entries.items() if entry and is_bare(entry)}
    return found
