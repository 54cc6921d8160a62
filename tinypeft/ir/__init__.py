"""The intermediate representation: tensors, operations and graphs, and what makes them consistent."""

from tinypeft.ir.graph import DTYPES, Graph, Narrowed, Operation, Purpose, Tensor
from tinypeft.ir.verify import verify

__all__ = ["DTYPES", "Graph", "Narrowed", "Operation", "Purpose", "Tensor", "verify"]
