"""How many slots and workers are wanted: the rule alone, without Redis and without a clock.

A snapshot of what pools ask for goes in (`demand.py`), one decision with its reason comes out (`decision.py`).
Who reads the snapshot, and whose hands carry the decision out, is not told here.
"""

from fleet.scaling.decision import Decision, PoolWant, decide
from fleet.scaling.demand import Bounds, Demand, LimitRoom, PoolDemand

__all__ = ["Bounds", "Decision", "Demand", "LimitRoom", "PoolDemand", "PoolWant", "decide"]
