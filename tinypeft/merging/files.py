"""A project and an adapter in, the merged model's files and a report of what merging lost out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinypeft.adapter_state import AdapterLike
from tinypeft.compiler import CompiledModel
from tinypeft.data import Dataset
from tinypeft.errors import AdapterError, OutputError
from tinypeft.frontend import LoadedModel
from tinypeft.generate import Project, keras_model
from tinypeft.merging.check import MergeCheck, check_merged
from tinypeft.merging.keras import merge_into_keras
from tinypeft.merging.merge import LayerReport, merge_adapter


@dataclass(frozen=True)
class MergeReport:
    """What merging did to each adapted layer; `check` compares outputs where samples were given."""

    layers: list[LayerReport]
    tflite_bytes: int
    check: MergeCheck | None


def merge_project(
    project: Project,
    adapter: AdapterLike,
    output: Path | str,
    *,
    keras: Path | str | None = None,
    dataset: Dataset | None = None,
) -> MergeReport:
    """`merge_files` of a project, whose folder holds the Keras model where it was generated from one."""
    path = keras_model(project)
    return merge_files(project.model, project.source, adapter, output, keras=keras, keras_base=path, dataset=dataset)


def merge_files(
    model: CompiledModel,
    source: LoadedModel,
    adapter: AdapterLike,
    output: Path | str,
    *,
    keras: Path | str | None = None,
    keras_base: Path | None = None,
    dataset: Dataset | None = None,
) -> MergeReport:
    """Write the merged .tflite to `output`, and to `keras` the merged `keras_base`: both, or on an error neither.

    `dataset`: samples with which unmerged and merged model are compared. AdapterError: an adapter that cannot be
    merged; OutputError: a file that cannot be written.
    """
    if keras is not None and keras_base is None:
        raise AdapterError(f"{model.name} was not made from a Keras model", "leave out --keras")
    merged = merge_adapter(model, source.tflite, adapter)
    check = check_merged(model, adapter, merged.tflite, dataset) if dataset is not None else None
    files = {Path(output): merged.tflite}
    if keras is not None and keras_base is not None:
        files[Path(keras)] = merge_into_keras(keras_base, model, source.keras_layers, merged)
    for path, data in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}", "choose another file") from error
    return MergeReport(merged.layers, len(merged.tflite), check)
