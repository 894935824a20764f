"""The connection and channel state machines of AMQP 0-9-1, without input or output of their own.

Octets go in by `Connection.receive_data`, octets come out of `Connection.data_to_send`.
"""
