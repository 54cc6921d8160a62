"""tinypeft compiles a Keras model plus adapters into C that infers and trains on a Cortex-M."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinypeft.api import Model

__version__ = "0.1.0"
__all__ = ["Model", "__version__"]


def __getattr__(name: str) -> Any:
    """`Model`, imported when it is asked for, so that `import tinypeft` stays light."""
    if name == "Model":
        from tinypeft.api import Model

        return Model
    raise AttributeError(f"module {__name__} has no attribute {name}")
