"""tinypeft compiles a Keras model plus adapters into C that infers and trains on a Cortex-M."""

__version__ = "0.1.0"
