"""Scenario files, and the objects their names stand for."""

from simulator.scenario.deployment import Deployment, LinkPlan, PoolPlan
from simulator.scenario.fit import never_fits
from simulator.scenario.scenario import Scenario
from simulator.scenario.slo import SLO, ClassSLO

__all__ = ["SLO", "ClassSLO", "Deployment", "LinkPlan", "PoolPlan", "Scenario", "never_fits"]
