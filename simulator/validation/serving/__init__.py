"""Measured end-to-end serving runs, each simulated as what it was."""
