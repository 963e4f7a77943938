"""What every test shares: Hypothesis gives the same examples each time, so a failure comes back."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "edgespec",
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],  # machines may be busy
)
settings.load_profile("edgespec")
