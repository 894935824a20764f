"""Messages that are not taken twice: what exchanges and queues remember of publishes."""
