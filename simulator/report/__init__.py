"""What people see of a run: terminal tables, figures, an HTML page, files and timeline traces.

Everything here reads finished results (``Run``, ``Summary``, ``Comparison``) and computes no metric
of its own. Import the module that is needed; this package imports none of them, so that a command
which draws nothing does not wait for the plotting library.
"""
