"""A regular package, so that no installed top-level `tests` can take its name."""
