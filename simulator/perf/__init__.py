"""Roofline operators, and the step time they add up to."""
