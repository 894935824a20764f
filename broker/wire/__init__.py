"""Bytes to and from AMQP 0-9-1: frames, methods, field tables, content headers.

The only package that uses pamqp.
"""
