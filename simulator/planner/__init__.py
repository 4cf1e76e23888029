"""``plan``: which xPyD, at what cost, how sure.

Closed-form bounds reject what cannot hold in steady state; what is left is simulated cheapest first,
each layout until it is decided and not longer, all on the same arrivals and lengths; the winner's
rate of collapse is bracketed. Every layout considered keeps the bound or interval that decided it.
"""

from simulator.planner.bench import Progress
from simulator.planner.evidence import COLUMNS, Evaluated
from simulator.planner.headroom import Headroom
from simulator.planner.inventory import Inventory, inventory_names
from simulator.planner.layout import Layout, Shape
from simulator.planner.planning import plan
from simulator.planner.result import Plan
from simulator.planner.saved import save_scenarios
from simulator.planner.space import Space

__all__ = [
    "COLUMNS",
    "Evaluated",
    "Headroom",
    "Inventory",
    "Layout",
    "Plan",
    "Progress",
    "Shape",
    "Space",
    "inventory_names",
    "plan",
    "save_scenarios",
]
