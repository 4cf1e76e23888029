"""Where ``from simulator import compare`` finds the function.

Everything else about comparisons is in ``simulator.comparison``, and the project imports it from
there: importing a submodule binds its name in the package, so a module called ``compare`` that
others import would hide the public function of the same name.
"""

from simulator.comparison import compare

__all__ = ["compare"]
