"""Reading .tflite files: names, tensors, and every file that must be refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_builder import Node, build_model, float_tensor, fully_connected, int8_tensor, int32_constant

from tinypeft.errors import ModelError
from tinypeft.frontend import load_model, read_tflite
from tinypeft.frontend.naming import UniqueNames, find_layer, identifier

KWS_LAYERS = [
    "conv2d", "depthwise_conv2d", "conv2d_1", "depthwise_conv2d_1", "conv2d_2", "depthwise_conv2d_2", "conv2d_3",
    "depthwise_conv2d_3", "conv2d_4", "average_pooling2d", "flatten", "dense", "softmax_12",
]  # fmt: skip
RESNET_LAYERS = [
    "conv2d", "conv2d_1", "conv2d_2", "add", "conv2d_3", "conv2d_4", "conv2d_5", "add_1", "conv2d_6", "conv2d_7",
    "conv2d_8", "add_2", "average_pooling2d", "flatten", "dense", "softmax_15",
]  # fmt: skip
FSDD_LAYERS = [
    "conv2d_1", "depthwise_conv2d_1", "conv2d_1_2", "depthwise_conv2d_1_2", "conv2d_2_1", "depthwise_conv2d_2_1",
    "conv2d_3_1", "depthwise_conv2d_3_1", "conv2d_4_1", "global_average_pooling2d_1", "dense_1",
]  # fmt: skip
VWW_LAYERS = [f"{kind}conv2d{f'_{i}' if i else ''}" for i in range(14) for kind in ("", "depthwise_")][:27]


@pytest.mark.parametrize(
    ("file", "layers"),
    [
        ("models/kws_ref_model.tflite", KWS_LAYERS),
        ("models/pretrainedResnet_quant.tflite", RESNET_LAYERS),
        ("models/ad01_int8.tflite", ["dense", *(f"dense_{i}" for i in range(1, 10))]),
        ("models/vww_96_int8.tflite", [*VWW_LAYERS, "average_pooling2d", "flatten", "dense", "softmax_30"]),
        ("fsdd_loso/lucas.tflite", FSDD_LAYERS),
        ("fsdd_loso/nicolas.tflite", FSDD_LAYERS),
        ("fsdd_loso/theo.tflite", FSDD_LAYERS),
    ],
)
def test_names_of_real_models(shared_data: Path, file: str, layers: list[str]) -> None:
    model = load_model(shared_data / file)
    assert [op.layer for op in model.graph.operations] == layers
    assert [op.name for op in model.graph.operations] == layers
    assert model.graph.inputs[0].name == "input"
    for op in model.graph.operations:
        assert op.output.name == f"{op.name}_out"
        weights = [t.name for t in op.inputs.values() if t.data is not None]
        assert all(name in (f"{op.name}_kernel", f"{op.name}_bias") for name in weights)
    assert model.name == Path(file).stem
    assert len(model.fingerprint) == 32
    assert model.keras_layers == {}


def small_model(**changes: Any) -> bytes:
    """One FULLY_CONNECTED of four inputs and three outputs; `changes` override tensors by role."""
    random = np.random.RandomState(0)
    x = changes.get("x") or int8_tensor("x", (1, 4), 0.1, 3)
    y = changes.get("y") or int8_tensor("model/dense/MatMul;model/dense/BiasAdd", (1, 3), 0.2, -5)
    weights = changes.get("weights") or int8_tensor(
        "model/dense/MatMul", (3, 4), [0.1, 0.2, 0.3], 0, random.randint(-127, 128, (3, 4))
    )
    bias = int32_constant("model/dense/BiasAdd", [1, 2, 3], [0.01, 0.02, 0.03])
    return build_model(fully_connected(x, weights, bias, y))


def edited(data: bytes, edit: Callable[[Any], None]) -> bytes:
    """`data` with `edit` applied to its object API model."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    edit(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_tensors_of_a_small_model() -> None:
    graph = read_tflite(small_model())
    (op,) = graph.operations
    assert (op.kind, op.name, op.layer) == ("FULLY_CONNECTED", "dense", "dense")
    kernel, bias = op.inputs["filter"], op.inputs["bias"]
    assert kernel.data is not None and bias.data is not None and kernel.scale is not None
    assert (kernel.name, kernel.dtype, bias.dtype) == ("dense_kernel", "int8", "int32")
    np.testing.assert_array_equal(kernel.scale, np.array([0.1, 0.2, 0.3], np.float32))
    np.testing.assert_array_equal(bias.data, [1, 2, 3])
    assert graph.inputs[0].zero_point == 3 and graph.inputs[0].shape == (1, 4)
    assert graph.outputs[0] is op.output and op.output.zero_point == -5


def test_float_at_the_edges() -> None:
    x, q = float_tensor("x", (1, 4)), int8_tensor("tfl.quantize", (1, 4), 0.1, 3)
    quantize = Node("QUANTIZE", None, [x], [q])
    graph = read_tflite(build_model(quantize, *_dense_nodes(q)))
    assert [op.kind for op in graph.operations] == ["QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE"]
    assert graph.inputs[0].dtype == graph.outputs[0].dtype == "float32"


def _dense_nodes(x: Any) -> list[Node]:
    weights = int8_tensor("model/dense/MatMul", (3, 4), 0.1, 0, np.ones((3, 4)))
    y, out = int8_tensor("model/dense/MatMul1", (1, 3), 0.2, -5), float_tensor("Identity", (1, 3))
    return [fully_connected(x, weights, None, y), Node("DEQUANTIZE", None, [y], [out])]


def _type(index: int, name: str) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        model.subgraphs[0].tensors[index].type = getattr(schema.TensorType, name)

    return edit


def _two_subgraphs(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])


def _dynamic(model: Any) -> None:
    model.subgraphs[0].tensors[0].shapeSignature = [1, -1]


def _variable(model: Any) -> None:
    model.subgraphs[0].tensors[0].isVariable = True


def _cosine(model: Any) -> None:
    code = schema.BuiltinOperator.COS
    model.operatorCodes[0] = schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code)


def _custom(model: Any) -> None:
    code = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0] = schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, customCode="Mine")


def _no_scale(model: Any) -> None:
    model.subgraphs[0].tensors[0].quantization = None


def _negative_scale(model: Any) -> None:
    model.subgraphs[0].tensors[0].quantization.scale = [-1.0]


def _weight_zero_point(model: Any) -> None:
    model.subgraphs[0].tensors[1].quantization.zeroPoint = [0, 1, 0]


def _wrong_axis(model: Any) -> None:
    model.subgraphs[0].tensors[1].quantization.quantizedDimension = 1


def _short_data(model: Any) -> None:
    model.buffers[1].data = model.buffers[1].data[:-1]


def _two_inputs(model: Any) -> None:
    model.subgraphs[0].inputs = [0, 0]


def _no_operators(model: Any) -> None:
    model.subgraphs[0].operators = []


def _out_of_range(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0, 99, 2]


def _nothing(model: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_type(0, "UINT8"), "uint8 quantisation"),
        (_type(0, "INT16"), "16-bit"),
        (_type(0, "INT64"), "INT64 activations"),
        (_type(1, "INT4"), "INT4"),
        (_two_subgraphs, "2 subgraphs"),
        (_dynamic, "dynamic shape"),
        (_variable, "variable"),
        (_cosine, r"COS of layer dense .*not supported; COS is .*; supported: ABS, ADD, .*SOFTMAX"),
        (_custom, "CUSTOM Mine"),
        (_no_scale, "no scale"),
        (_negative_scale, "not positive"),
        (_weight_zero_point, "zero points"),
        (_wrong_axis, "along axis 1"),
        (_short_data, "holds 11 B"),
        (_two_inputs, "2 inputs"),
        (_no_operators, "no operators"),
        (_out_of_range, "index 99"),
    ],
)
def test_refuses(edit: Callable[[Any], None], message: str) -> None:
    read_tflite(edited(small_model(), _nothing))
    with pytest.raises(ModelError, match=message) as caught:
        read_tflite(edited(small_model(), edit))
    assert "\n" not in caught.value.message


def test_refuses_float_model() -> None:
    x, y = float_tensor("x", (1, 4)), float_tensor("y", (1, 3))
    weights = float_tensor("model/dense/MatMul", (3, 4))
    weights.data = np.ones((3, 4), np.float32)
    with pytest.raises(ModelError, match="float model.*full int8 quantisation") as caught:
        read_tflite(build_model(fully_connected(x, weights, None, y)))
    assert caught.value.hint is not None and ".keras" in caught.value.hint


def test_refuses_hybrid_model() -> None:
    with pytest.raises(ModelError, match="hybrid"):
        read_tflite(small_model(x=float_tensor("x", (1, 4)), y=float_tensor("y", (1, 3))))


def test_refuses_float_inside_int8_model() -> None:
    a, b = float_tensor("a", (1, 3)), float_tensor("b", (1, 3))
    nodes = _dense_nodes(int8_tensor("x", (1, 4), 0.1))[:1]
    y = nodes[0].outputs[0]
    nodes += [Node("DEQUANTIZE", None, [y], [a]), Node("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), [a], [b])]
    with pytest.raises(ModelError, match="SOFTMAX computes in float inside an int8 model"):
        read_tflite(build_model(*nodes))


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x1c\0\0\0TFL3", b"hello world, this is no model", bytes(1000)])
def test_refuses_other_bytes(data: bytes) -> None:
    with pytest.raises(ModelError):
        read_tflite(data)


def test_damaged_files_end_in_model_error(shared_data: Path) -> None:
    for data in (small_model(), (shared_data / "models" / "pretrainedResnet_quant.tflite").read_bytes()):
        random = np.random.RandomState(0)
        damaged = [data[:end] for end in [*range(0, 64, 3), *random.randint(0, len(data), 60)]]
        for _ in range(400):
            changed = bytearray(data)
            for _ in range(random.choice([1, 3, 20])):
                # the structure lies behind the weights
                position = len(data) - 1 - random.randint(min(12000, len(data)))
                changed[position] = random.choice([0, 255, changed[position] ^ (1 << random.randint(8))])
            damaged.append(bytes(changed))
        for candidate in damaged:
            try:
                read_tflite(candidate)
            except ModelError as error:
                assert "\n" not in error.message


def test_reads_without_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(small_model())
    code = (
        "import sys; from tinypeft.frontend import load_model; load_model(sys.argv[1]); "
        "sys.exit(any(m.split('.')[0] in ('tensorflow', 'keras') for m in sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.tflite")], cwd=root, check=True)


def test_load_model_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "missing.tflite")
    with pytest.raises(ModelError, match="does not exist or is not a file"):
        load_model(tmp_path)
    other = tmp_path / "model.onnx"
    other.write_bytes(b"x")
    with pytest.raises(ModelError, match="suffix .onnx, supported are .keras, .h5, .tflite"):
        load_model(other)
    bad = tmp_path / "3 bad-names.tflite"
    bad.write_bytes(b"x")
    with pytest.raises(ModelError, match="3 bad-names.tflite: not a .tflite file"):
        load_model(bad)
    bad.write_bytes(small_model())
    assert load_model(bad).name == load_model(bad).graph.name == "layer_3_bad_names"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my-conv", "my_conv"),
        ("int", "int_"),
        ("3d", "layer_3d"),
        ("_x", "layer_x"),
        ("", "layer_"),
        ("a.b/c", "a_b_c"),
    ],
)
def test_identifier(text: str, expected: str) -> None:
    assert identifier(text) == expected


def test_unique_names() -> None:
    names = UniqueNames(["input"])
    assert [names.take(n) for n in ("input", "a-b", "a_b", "a_b_2")] == ["input_2", "a_b", "a_b_2", "a_b_2_2"]


@pytest.mark.parametrize(
    ("kind", "weights", "output", "known", "layer"),
    [
        (
            "CONV_2D",
            ["m/bn_1/batchnorm/mul_1;m/conv2d/convolution"],
            "m/re_lu/Relu;m/conv2d/convolution1",
            [],
            "conv2d",
        ),
        ("DEPTHWISE_CONV_2D", ["m/dw_4/depthwise;m/dw_4/BiasAdd;m/dw_5/depthwise"], "x", [], "dw_4"),
        ("DEPTHWISE_CONV_2D", ["m/dw_5/depthwise;m/dw_4/depthwise;m/dw_4/BiasAdd"], "x", [], "dw_4"),
        ("FULLY_CONNECTED", ["tfl.pseudo_qconst"], "m/dense/MatMul;m/dense/BiasAdd", [], "dense"),
        ("FULLY_CONNECTED", ["tfl.pseudo_qconst"], "StatefulPartitionedCall:0", [], None),
        ("ADD", [], "m/activation_2/Relu;m/add/add1", [], "add"),
        ("ADD", [], "m/bn/batchnorm/add_1;m/sum/Add", [], "sum"),
        ("CONV_2D", ["m/sub/conv2d/Conv2D"], "x", ["sub", "conv2d"], "conv2d"),
        ("CONV_2D", ["m/my_conv/Conv2D"], "x", ["my-conv"], "my-conv"),
        ("FULLY_CONNECTED", ["m/dense_1/MatMul"], "x", ["dense"], "dense"),
        ("FULLY_CONNECTED", ["m/dense_1/MatMul"], "x", ["dense", "dense_1"], "dense_1"),
        ("MEAN", [], "Identity", ["pool"], None),
    ],
)
def test_find_layer(kind: str, weights: list[str], output: str, known: list[str], layer: str | None) -> None:
    assert find_layer(kind, weights, output, known) == layer
