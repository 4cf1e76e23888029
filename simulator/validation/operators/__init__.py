"""Kernels predicted one by one against tables of measured kernels."""
