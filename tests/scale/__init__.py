"""Measurements of size and speed that depend on the machine: run by hand, not by the tests."""
