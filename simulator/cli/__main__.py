"""``python -m simulator.cli``, the same as ``xpyd``."""

from simulator.cli import main

main()
