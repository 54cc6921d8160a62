"""The personalisation benchmark's data, base models and float baselines.

A dataset's name in; its users, a Keras model each to start from, and what float training makes of it out.
"""

from tinypeft.benchmark.base_models import BaseModel, base_models
from tinypeft.benchmark.datasets import DATASETS, BenchmarkDataset, Samples, UserSplit, load_benchmark
from tinypeft.benchmark.float_baselines import METHODS, FloatResult, Summary, float_results, summarize

__all__ = [
    "DATASETS",
    "METHODS",
    "BaseModel",
    "BenchmarkDataset",
    "FloatResult",
    "Samples",
    "Summary",
    "UserSplit",
    "base_models",
    "float_results",
    "load_benchmark",
    "summarize",
]
