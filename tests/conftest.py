"""Property-based tests: the same examples every time, and no clock decides whether one passes."""

from hypothesis import settings

settings.register_profile("xpyd", deadline=None, derandomize=True)
settings.load_profile("xpyd")
