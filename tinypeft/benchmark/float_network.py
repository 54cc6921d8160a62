"""A Keras model's float twin for training on a device's few samples: BatchNorm folded, LoRA beside its layers.

It has the form of the integer model that it is compared with: an adapter adds to its layer's sum after BatchNorm is
folded into the layer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.errors import ModelError

LORA_R, LORA_ALPHA = 4, 8


def load(path: Path) -> Any:
    """The Keras model in `path`; ModelError if Keras cannot load it."""
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # any exception of zipfile, h5py, json or a layer's constructor
        raise ModelError(f"{path} cannot be loaded by Keras: {error}", "clear the cache, or check the data") from error


def rebuild(model: Any, logits: bool, lora: bool, target_modules: str) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """(the model with BatchNorm folded, layer name -> the layers A and B of its adapter where `lora` is true).

    `logits`: without a softmax at the end. Weights are fresh. See `takes_adapter` for `target_modules`.
    """
    import keras
    from keras import layers

    folded = batch_norms(model)
    skipped = {norm.name for norm in folded.values()}
    if logits:
        skipped |= {layer.name for layer in model.layers if isinstance(layer, layers.Softmax)}
    head = head_of(model).name
    targets = {layer.name for layer in model.layers if lora and takes_adapter(layer, head, target_modules)}
    adapters: dict[str, tuple[Any, Any]] = {}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in folded:
            config["use_bias"] = True
        if layer.name in targets or (logits and layer.name == head):
            config["activation"] = "linear"  # that of a target follows its sum with the adapter
        return type(layer).from_config(config)

    def call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        if layer.name in skipped:
            return arguments[0]
        result = layer(*arguments, **keywords)
        if layer.name not in targets:
            return result
        down, up = adapters[layer.name] = adapter_layers(layer)
        added = layers.Rescaling(LORA_ALPHA / LORA_R, name=f"{layer.name}_scaling")(up(down(arguments[0])))
        result = layers.Add(name=f"{layer.name}_adapted")([result, added])
        activation = model.get_layer(layer.name).activation
        return result if activation is keras.activations.linear else activation(result)

    functional = keras.Model(model.inputs, model.outputs)
    return keras.models.clone_model(functional, clone_function=clone, call_function=call), adapters


def takes_adapter(layer: Any, head: str, target_modules: str) -> bool:
    """Whether `layer` gets LoRA: a convolution or dense layer, but for depthwise ones and the head.

    `target_modules` is a regular expression of the whole layer name; "" leaves no other layer out.
    """
    from keras import layers

    plain = isinstance(layer, layers.Conv2D | layers.Dense) and not isinstance(layer, layers.DepthwiseConv2D)
    targeted = not target_modules or re.fullmatch(target_modules, layer.name) is not None
    return plain and targeted and layer.name != head


def adapter_layers(layer: Any) -> tuple[Any, Any]:
    """The layers A, of the form of `layer` but LORA_R wide, and B, 1x1, of a convolution or dense layer."""
    from keras import layers

    names = f"{layer.name}_lora_A", f"{layer.name}_lora_B"
    if isinstance(layer, layers.Dense):
        down = layers.Dense(LORA_R, use_bias=False, name=names[0])
        return down, layers.Dense(layer.units, use_bias=False, name=names[1])
    form = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    down = layers.Conv2D(LORA_R, layer.kernel_size, use_bias=False, name=names[0], **form)
    return down, layers.Conv2D(layer.filters, 1, use_bias=False, name=names[1])


def folded_weights(model: Any) -> dict[str, list[np.ndarray]]:
    """Layer name -> kernel and bias of every layer that has weights, BatchNorm folded into those before it."""
    folded = batch_norms(model)
    norms = {norm.name for norm in folded.values()}
    weights = {}
    for layer in model.layers:
        if layer.name in folded:
            weights[layer.name] = _fold(layer, folded[layer.name])
        elif layer.weights and layer.name not in norms:
            weights[layer.name] = layer.get_weights()
    return weights


def _fold(layer: Any, norm: Any) -> list[np.ndarray]:
    from keras import layers

    kernel = layer.get_weights()[0].astype(np.float64)
    bias = layer.get_weights()[1] if layer.use_bias else 0.0
    size = norm.moving_mean.shape[0]
    gamma = np.asarray(norm.gamma) if norm.scale else np.ones(size)
    beta = np.asarray(norm.beta) if norm.center else np.zeros(size)
    factor = gamma / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    new_bias = beta + (bias - np.asarray(norm.moving_mean)) * factor
    if isinstance(layer, layers.DepthwiseConv2D):
        factor = factor.reshape(kernel.shape[2:])
    return [(kernel * factor).astype(np.float32), new_bias.astype(np.float32)]


def batch_norms(model: Any) -> dict[str, Any]:
    """Layer name -> the BatchNorm that alone reads its output; ModelError for one that follows anything else."""
    from keras import layers

    found = {}
    for norm in model.layers:
        if not isinstance(norm, layers.BatchNormalization):
            continue
        layer = norm._inbound_nodes[0].parent_nodes[0].operation
        linear = isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense)
        readers = {node.operation.name for node in layer._outbound_nodes}  # a Sequential has every node twice
        if not linear or layer.activation.__name__ != "linear" or readers != {norm.name}:
            raise ModelError(
                f"{norm.name} cannot be folded into {layer.name}, {type(layer).__name__}, not linear or read twice",
                "train a model whose BatchNorm follows a convolution or dense layer",
            )
        found[layer.name] = norm
    return found


def head_of(model: Any) -> Any:
    """The last dense layer; ModelError if there is none."""
    from keras import layers

    found = [layer for layer in model.layers if isinstance(layer, layers.Dense) and "_lora_" not in layer.name]
    if not found:
        raise ModelError(f"{model.name} has no dense layer that could be retrained", "end it with a dense layer")
    return found[-1]
