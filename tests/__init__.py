"""Tests; ``python -m pytest`` and ``trial tests`` both run them all."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No clock decides whether a test passes: machines that run tests are busy.
settings.register_profile("wireleap", deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wireleap")
