"""How laws are run, by Hypothesis: no example has a time to end in, since machines stand still now and then."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# In CI a failure has to be one of the change under test: there the examples are the same every time. Elsewhere they
# vary, and that is where new ones are found.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI")))
SHARING = settings(UNTIMED, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
"""For laws whose examples share what a fixture made: it is the law's part to begin each of them anew."""


def install() -> None:
    """Run every law so that says nothing else."""
    settings.register_profile("untimed", UNTIMED)
    settings.load_profile("untimed")
