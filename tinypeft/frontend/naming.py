"""Names of operations: from the tensor names that the converter left in the file to Keras layers and C identifiers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

#: operator -> last path elements of the TensorFlow operations that it is made from
_ENDINGS = {
    "CONV_2D": ("Conv2D", "convolution", "separable_conv2d"),
    "DEPTHWISE_CONV_2D": ("depthwise",),
    "TRANSPOSE_CONV": ("conv2d_transpose", "conv_transpose"),
    "FULLY_CONNECTED": ("MatMul", "dot", "Tensordot"),
    "ADD": ("add", "Add", "AddV2"),
    "MUL": ("mul", "Mul"),
    "AVERAGE_POOL_2D": ("AvgPool", "AvgPool2d"),
    "MAX_POOL_2D": ("MaxPool", "MaxPool2d"),
    "MEAN": ("Mean",),
    "REDUCE_MAX": ("Max",),
    "REDUCE_MIN": ("Min",),
    "PAD": ("Pad", "PadV2"),
    "RESHAPE": ("Reshape", "Squeeze", "ExpandDims"),
    "SOFTMAX": ("Softmax",),
}
#: elements that stand between a layer's name and the end of a path
_INNER = {"BiasAdd", "ReadVariableOp", "Tensordot", "batchnorm", "convolution", "separable_conv2d"}
_C_KEYWORD = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|main|register|"
    "restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while"
)


def identifier(text: str) -> str:
    """`text` as a C identifier: `my-layer` gives `my_layer`."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    if not name or name[0].isdigit() or name.startswith("_"):
        name = "layer" + (name if name.startswith("_") else f"_{name}")
    return f"{name}_" if _C_KEYWORD.fullmatch(name) else name


#: what the sources of a model and of its command server call things of their own, in the same file as its name
_OF_FIRMWARE = re.compile(
    "adapter|adapter_memory|adapters|arena|base_serves|bytes|capacity|count|data|encode|evaluate|export_adapter|"
    "fingerprint|first|fit_memory|forward|forward_merged|gradient|guards_intact|header|identity|index|input|instance|"
    "label|latent_memory|latents|learning_rate|load_adapter|logits|loss|loss_of_sample|m|masters_sane|memory_of_fit|"
    "merge|merged|output|package|package_info|package_tensors|payload|pending|prepare_training|replaced_adapter|"
    "requantize|reset_adapter|resident|restore_masters|right|right_of_sample|sample_store|samples|security|seed|"
    "seed_of_adapter|set_trace|source|staging|status|store|target|target_memory|trace|trace_gradient|traced|"
    "train_latents|train_step|training|training_memory|unmerge|update|use_adapter|verify_sig"
)


def model_identifier(stem: str) -> str:
    """What a model's file is called, as the prefix of its C names: `my-model` gives `my_model`."""
    name = identifier(stem)
    return f"{name}_model" if _OF_FIRMWARE.fullmatch(name) or name.startswith("tp_") else name


class UniqueNames:
    """Hands out C identifiers, none of them twice."""

    def __init__(self, taken: Iterable[str] = ()):
        self._taken = set(taken)

    def take(self, wanted: str) -> str:
        """`wanted` as an identifier, with _2, _3 and so on behind it where it is taken."""
        base = identifier(wanted)
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def find_layer(
    kind: str, weight_names: Sequence[str], output_name: str, keras_layers: Iterable[str] = ()
) -> str | None:
    """The layer that an operator of `kind` came from, or None where the names don't tell.

    A name lists the TensorFlow operations that were fused, `model/re_lu/Relu;model/conv2d/convolution`. The weights'
    names are asked first, then the output's. With `keras_layers`, only these are answers.
    """
    known = {identifier(layer): layer for layer in keras_layers}
    endings = _ENDINGS.get(kind, ())
    sources = [_paths(name) for name in (*weight_names, output_name)]
    for paths in sources:
        layers = [_owner(path, known) for path in paths]
        mentions = Counter(layers)
        fitting = [layer for path, layer in zip(paths, layers, strict=True) if layer and _fits(path, endings)]
        if fitting:
            return max(fitting, key=lambda layer: mentions[layer])  # the first of those named most often
    for paths in sources if weight_names else sources[-1:]:
        for path in paths:
            if layer := _owner(path, known):
                return layer
    return None


def find_folded_layer(kind: str, layer: str, taken: Iterable[str], classes: Mapping[str, str]) -> str:
    """The layer with the weights of an operator of `kind` that the converter named `layer`.

    At a model's end a dense layer's own name is lost where a BatchNormalization is folded into it: it is the nearest
    Dense in front that no operator is named after. `taken` are the layers of all operators; `classes` layer -> Keras
    class, in the model's order, perhaps empty.
    """
    if kind != "FULLY_CONNECTED" or classes.get(layer) != "BatchNormalization":
        return layer
    names, taken = list(classes), set(taken)
    in_front = [name for name in names[: names.index(layer)] if classes[name] == "Dense" and name not in taken]
    return in_front[-1] if in_front else layer


def _paths(name: str) -> list[list[str]]:
    return [part.split("/") for part in name.removesuffix(":0").split(";")]


def _fits(path: list[str], endings: tuple[str, ...]) -> bool:
    # A second tensor of one name gets digits behind it; batch normalisation has a `mul` and an `add` of its own.
    if "batchnorm" in path:
        return False
    return any(re.fullmatch(f"{ending}(_?[0-9]+)?", element) for element in path[1:] for ending in endings)


def _owner(path: list[str], known: dict[str, str]) -> str | None:
    if known:
        for element in reversed(path):
            for name in (identifier(element), re.sub(r"_\d+$", "", identifier(element))):
                if name in known:
                    return known[name]
        return None
    if len(path) < 2:
        return None
    scope = path[:-1]
    while len(scope) > 1 and (scope[-1] in _INNER or scope[-1].split("_")[0] in _INNER):
        scope = scope[:-1]
    return scope[-1]
