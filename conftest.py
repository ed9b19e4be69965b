"""Activates what every member's tests share: real servers, found or started, and how properties are tested."""

from hypothesis import settings

pytest_plugins = ["vegamite_common.testing.plugin"]

# How long an example takes says more of the machine than of the code; `benchmarks/` times things.
settings.register_profile("vegamite", deadline=None)
settings.load_profile("vegamite")
