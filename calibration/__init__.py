"""The calibration harness: torch microbenchmarks of a GPU, and the fit of its profile.

Not built yet. The folder is part of the project's fixed layout; the parameters in ``hwprofiles`` were
fitted outside the project, and each says from what. Nothing imports this package.
"""
