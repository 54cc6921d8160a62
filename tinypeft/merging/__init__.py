"""Adapters merged into the base: weights, files, and what that lost."""

from tinypeft.merging.check import MergeCheck
from tinypeft.merging.files import MergeReport, merge_files, merge_project
from tinypeft.merging.merge import LayerReport, Merged, merge_adapter

__all__ = ["LayerReport", "MergeCheck", "MergeReport", "Merged", "merge_adapter", "merge_files", "merge_project"]
