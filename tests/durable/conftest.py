"""Loads the Hypothesis profile before any test module asks for settings."""

from tests.wire import profiles

__all__ = ["profiles"]
