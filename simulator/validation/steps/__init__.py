"""Whole steps: against sums of measured kernels, and against a measured engine of 2023."""
