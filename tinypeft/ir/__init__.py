"""The intermediate representation: tensors, operations and graphs, and what makes them consistent."""

from tinypeft.ir.graph import DTYPES, Graph, Operation, Purpose, Tensor
from tinypeft.ir.verify import verify

__all__ = ["DTYPES", "Graph", "Operation", "Purpose", "Tensor", "verify"]
