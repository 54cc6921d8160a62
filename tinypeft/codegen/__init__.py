"""Code generation: a compiled model in, the C sources of its forward pass, training step and tables out."""

from tinypeft.codegen.sources import GeneratedSources, generate_sources

__all__ = ["GeneratedSources", "generate_sources"]
