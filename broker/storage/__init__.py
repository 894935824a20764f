"""Storage: a fenced log of opaque batches, and what keeps one. It knows nothing of queues."""
