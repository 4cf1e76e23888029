"""Predictions against measurements: operators, steps, end-to-end serving runs."""
