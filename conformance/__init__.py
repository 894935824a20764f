"""Wire-level conformance suite: scenarios over a real socket against any AMQP 0-9-1 broker."""
