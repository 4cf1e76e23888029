"""The constants of the bundled engine profiles, fitted to measured runs: ``python -m calibration.engines``."""
