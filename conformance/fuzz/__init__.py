"""Fuzzing of the broker's own state machine, in this process and without a socket.

`python -m conformance.fuzz --cases 1000000 --seed 1` feeds mutated and generated frame sequences to
two brokers at a time, to one in whole chunks and to the other cut anywhere, and holds both to the
same answers and to the invariants in `conformance.fuzz.invariants`.
"""
