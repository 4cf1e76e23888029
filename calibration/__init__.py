"""The calibration harness: torch microbenchmarks of one machine, and the fit of its profile.

``bench`` measures operators and writes rows in the columns of the operator tables that
``xpyd validate`` reads; ``fit`` turns rows into a hardware profile with standard errors, held-out
errors, plots and a page. Only the command line and notebooks import this package; torch is imported
when something is measured and not before.
"""
