"""How many examples Hypothesis makes for tests/wire, tests/core and tests/protocol.

By default few, and the same ones each time. The long form makes N times as many, different ones
each time, and needs a longer timeout:

    LEVERET_TEST_EXAMPLES=100 pytest --timeout=3600 tests/wire tests/core tests/protocol
"""

import os

from hypothesis import HealthCheck, Phase, settings

FACTOR = int(os.environ.get("LEVERET_TEST_EXAMPLES", "1"))

settings.register_profile(
    "leveret",
    derandomize=FACTOR == 1,
    database=None,
    deadline=None,
    # Explaining a failure runs it hundreds of times more; its shrunk form says enough.
    phases=(Phase.explicit, Phase.generate, Phase.target, Phase.shrink),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("leveret")


def examples(count: int) -> settings:
    """`count` examples; in the long form, many times as many."""
    return settings(max_examples=count * FACTOR)


def steps(count: int, step_count: int) -> settings:
    """`count` runs of a state machine, of up to `step_count` steps each."""
    return settings(max_examples=count * FACTOR, stateful_step_count=step_count)
