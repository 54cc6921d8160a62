"""What a built project costs on an emulated core: instructions, estimated cycles, code and tables, by operator."""

from tinypeft.counting.measure import Measurement, measure_project
from tinypeft.counting.operators import GraphCost, OperatorCost

__all__ = ["GraphCost", "Measurement", "OperatorCost", "measure_project"]
