"""The command line, ``xpyd``."""

from simulator.cli.app import app, main

__all__ = ["app", "main"]
