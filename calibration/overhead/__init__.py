"""Overheads of a serving engine from a user's own benchmark results.

Results of benchmark clients are read (``results``), each is replayed in the simulator as the run it
was (``replay``), and the engine's constants are moved until predictions and measurements agree, with
the engine's profile as the prior (``refit``).
"""
