"""Random input for everything that reads what others wrote.

Each run of the tests draws the same examples. With FUZZ_SECONDS (`make fuzz`) they are drawn
afresh: five times as many by Hypothesis, and damaged audio for so many seconds.
"""

import os

from hypothesis import HealthCheck, settings

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))


def examples(count: int) -> settings:
    """Settings for so many examples: always the same ones, or five times as many fresh ones."""
    return settings(
        max_examples=5 * count if SECONDS else count,
        derandomize=not SECONDS,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
