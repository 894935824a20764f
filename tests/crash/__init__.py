"""Tests of the crash harness, and a broker that is killed."""
