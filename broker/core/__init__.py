"""The broker itself: messages, queues, consumers, exchanges, virtual hosts, users.

Pure and synchronous. Nothing here waits, reads a clock, rolls dice or opens anything: time,
randomness and durability come in as arguments.
"""
