"""Layers that are found in graphs by the names of operations, worked out by hand."""

from __future__ import annotations

from actgrid.models.graph_layers import (
    GraphTensor,
    find_layers,
    find_output_layer,
    list_layer_edges,
)


def make_chain(*operations: tuple[str, str]) -> list[GraphTensor]:
    """Make a graph in which each operation takes the tensor before it, from (name, type)."""
    count = len(operations)
    return [
        GraphTensor((name,), kind, (position - 1,), is_output=position == count - 1)
        for position, (name, kind) in enumerate(operations)
    ]


def list_paths(tensors: list[GraphTensor]) -> list[str]:
    return [layer.path for layer in find_layers(tensors)]


def test_scopes_of_keras_3_become_keras_paths() -> None:
    tensors = make_chain(
        ("net_1/scale_1/mul", "Mul"),
        ("net_1/scale_1/add", "AddV2"),
        ("net_1/conv_1/convolution", "Conv2D"),
        ("net_1/conv_1/BiasAdd", "BiasAdd"),
        ("net_1/conv_1/Relu", "Relu"),
        ("net_1/norm_1/batchnorm/mul_1", "Mul"),
        ("net_1/norm_1/batchnorm/add_1", "AddV2"),
        ("net_1/inner_1/conv2d_1_2/convolution", "Conv2D"),
        ("net_1/relu_2", "Relu"),
        ("net_1/dense_1/MatMul", "MatMul"),
        ("net_1/dense_1/Softmax", "Softmax"),
    )
    layers = find_layers(tensors)
    assert [(layer.path, layer.type, layer.position) for layer in layers] == [
        ("scale", "AddV2", 1),
        ("conv", "Conv2D", 4),
        ("norm", "AddV2", 6),
        ("inner/conv2d_1", "Conv2D", 7),
        ("relu_2", "Relu", 8),
        ("dense", "MatMul", 10),
    ]
    assert list_layer_edges(layers, ["image"]) == [
        ("image", "scale"),
        ("scale", "conv"),
        ("conv", "norm"),
        ("norm", "inner/conv2d_1"),
        ("inner/conv2d_1", "relu_2"),
        ("relu_2", "dense"),
    ]


def test_scopes_of_tensorflow_inside_layers_of_keras_3() -> None:
    tensors = make_chain(
        ("net_1/conv2d_1/convolution", "Conv2D"),
        ("net_1/up_1/Repeat/Tile", "Tile"),
        ("net_1/up_1/Repeat_1/Tile", "Tile"),
        ("net_1/conv2d_1_2/convolution", "Conv2D"),
        ("net_1/conv2d_1_2/Relu", "Relu"),
    )
    assert list_paths(tensors) == ["conv2d", "up", "conv2d_1"]


def test_calls_of_a_shared_layer_are_numbered() -> None:
    tensors = [
        GraphTensor(("net_1/conv_1/convolution",), "Conv2D", (-1,), {"conv/kernel": 6}),
        GraphTensor(("net_1/conv_3/convolution",), "Conv2D", (-2,), {"conv/kernel": 6}),
        GraphTensor(("net_1/add_1/Add",), "AddV2", (0, 1), is_output=True),
    ]
    layers = find_layers(tensors)
    assert [layer.path for layer in layers] == ["conv", "conv:1", "add"]
    assert [layer.sources for layer in layers] == [(-1,), (-2,), (0, 1)]
    assert [layer.parameters for layer in layers] == [6, 6, 0]


def test_other_scopes_keep_their_names() -> None:
    tensors = make_chain(
        ("vgg_16/conv1/conv1_1/Conv2D", "Conv2D"),
        ("vgg_16/conv1/conv1_1/Relu", "Relu"),
        ("vgg_16/conv1/conv1_2/Conv2D", "Conv2D"),
        ("vgg_16/pool1/MaxPool", "MaxPool"),
        ("vgg_16/fc6/BatchNorm/batchnorm/add_1", "AddV2"),
    )
    assert list_paths(tensors) == ["conv1/conv1_1", "conv1/conv1_2", "pool1", "fc6/BatchNorm"]


def test_operations_of_a_block_are_layers() -> None:
    tensors = make_chain(
        ("block/Conv2D", "Conv2D"),
        ("block/Relu", "Relu"),
        ("block/Conv2D_1", "Conv2D"),
        ("block/Identity", "Identity"),
        ("head/MatMul", "MatMul"),
    )
    assert list_paths(tensors) == ["block/Conv2D", "block/Relu", "block/Conv2D_1", "head"]


def test_names_of_pytorch() -> None:
    tensors = make_chain(
        ("/layer1/layer1.0/conv1/Conv", "Conv"),
        ("/layer1/layer1.0/relu/Relu", "Relu"),
        ("/layer1/layer1.0/conv2/Conv", "Conv"),
        ("/layer1/layer1.0/Add", "Add"),
        ("/layer1/layer1.0/relu/Relu_1", "Relu"),
        ("/fc/Gemm", "Gemm"),
    )
    assert list_paths(tensors) == [
        *("layer1.0/conv1", "layer1.0/relu", "layer1.0/conv2", "layer1.0/Add"),
        *("layer1.0/relu:1", "fc"),
    ]


def test_generated_names_are_replaced_by_those_of_weights() -> None:
    tensors = [
        GraphTensor(("12", "Conv_0"), "Conv", (-1,), {"stem.conv.weight": 9, "stem.conv.bias": 1}),
        GraphTensor(("Conv__7:0",), "Conv", (0,), {"m/b/kernel": 4, "m/bn/batchnorm/sub": 2}),
        GraphTensor(("m/relu/Relu:0",), "Clip", (1,), {"m/other/Relu6_min__2": 0}, is_output=True),
    ]
    layers = find_layers(tensors)
    assert [layer.path for layer in layers] == ["stem.conv", "m/bn", "m/relu"]
    assert [layer.parameters for layer in layers] == [10, 6, 0]


def test_recurrent_layers_of_tf2onnx() -> None:
    """Operations of a layer lose its scope, but the transposition before the layer keeps it."""
    tensors = make_chain(
        ("net_1/first_1/transpose:0", "Transpose"),
        ("LSTM__384:0", "LSTM"),
        ("Squeeze__388:0", "Squeeze"),
        ("net_1/first_1/transpose_1:0", "Transpose"),
        ("net_1/last_1/transpose:0", "Transpose"),
        ("LSTM__420:1", "LSTM"),
        ("Squeeze__425:0", "Squeeze"),
        ("net_1/out_1/MatMul:0", "MatMul"),
    )
    layers = find_layers(tensors)
    assert [(layer.path, layer.type, layer.position) for layer in layers] == [
        ("first", "LSTM", 3),
        ("last", "LSTM", 6),
        ("out", "MatMul", 7),
    ]
    tensors = make_chain(
        ("net_1/both_1/forward_lstm_1/transpose:0", "Transpose"),
        ("LSTM__331:0", "LSTM"),
        ("Slice__338:0", "Slice"),
        ("net_1/both_1/concat:0", "Concat"),
        ("LSTM__300:0", "LSTM"),
        ("net_1/out_1/MatMul:0", "MatMul"),
    )
    assert list_paths(tensors) == ["both/LSTM__331", "both", "LSTM__300", "out"]


def test_operations_that_tf2onnx_replaced_are_part_of_the_layer_around_them() -> None:
    tensors = make_chain(
        ("net_1/conv_1/BiasAdd:0", "Conv"),
        ("Transpose__135:0", "Transpose"),
        ("net_1/mha_1/query_1/Add:0", "Add"),
        ("Reshape__77:0", "Reshape"),
        ("MatMul__83:0", "MatMul"),
        ("net_1/mha_1/Softmax:0", "Softmax"),
        ("Squeeze__91:0", "Squeeze"),
        ("net_1/mha_1/output_1/BiasAdd:0", "Add"),
        ("MatMul__95:0", "MatMul"),
        ("net_1/out_1/BiasAdd:0", "Add"),
    )
    assert list_paths(tensors) == [
        *("conv", "mha/query", "mha/Reshape__77", "mha/MatMul__83", "mha/Softmax", "mha/output"),
        *("MatMul__95", "out"),
    ]


def test_fused_names_of_tflite_start_with_the_last_operation() -> None:
    names = "net_1/relu_1/Relu6;net_1/bn_1/batchnorm/add_1;net_1/conv_1/convolution"
    tensors = [
        GraphTensor((names,), "Conv2D", (-1,)),
        GraphTensor(("net_1/dense_1/MatMul;net_1/dense_1/BiasAdd",), "FullyConnected", (0,)),
        GraphTensor(("StatefulPartitionedCall:0",), "Softmax", (1,), is_output=True),
    ]
    layers = find_layers(tensors)
    assert [(layer.path, layer.position) for layer in layers] == [("relu", 0), ("dense", 2)]


def test_output_of_several_layers_has_its_name_in_the_signature() -> None:
    tensors = [
        GraphTensor(("net_1/a_1/MatMul",), "FULLY_CONNECTED", (-1,)),
        GraphTensor(("net_1/b_1/MatMul",), "FULLY_CONNECTED", (-1,)),
        GraphTensor(("StatefulPartitionedCall:0",), "ADD", (0, -1), {}, True, output_name="sum"),
        GraphTensor(("StatefulPartitionedCall:1",), "TANH", (1,), {}, True, output_name="other"),
    ]
    layers = find_layers(tensors)
    assert [(layer.path, layer.position) for layer in layers] == [("a", 0), ("sum", 2), ("b", 3)]


def test_output_that_is_a_copy_is_the_layer() -> None:
    tensors = [
        GraphTensor(("net_1/a_1/Relu",), "Relu", (-1,)),
        GraphTensor(("net_1/b_1/Relu",), "Relu", (0,)),
        GraphTensor(("Identity",), "Identity", (0,), is_output=True),
        GraphTensor(("",), "DEQUANTIZE", (1,)),
        GraphTensor(("Identity_1",), "Identity", (3,), is_output=True),
    ]
    layers = find_layers(tensors)
    assert [layer.path for layer in layers] == ["a", "b"]
    assert [find_output_layer(tensors, layers, position) for position in (2, 4)] == [0, 1]


def test_several_outputs_of_a_layer() -> None:
    tensors = [
        GraphTensor(("m/split/Split:0",), "Split", (-1,)),
        GraphTensor(("m/split/Split:1",), "Split", (-1,)),
        GraphTensor(("m/lstm/Tanh",), "Tanh", (0,)),
        GraphTensor(("m/lstm/Mul",), "Mul", (2,)),
        GraphTensor(("m/sum/Add",), "Add", (1, 2)),
        GraphTensor(("m/out/Add",), "Add", (3, 4), is_output=True),
    ]
    assert list_paths(tensors) == ["split", "split:1", "lstm/Tanh", "lstm", "sum", "out"]


def test_shapes_constants_and_unused_tensors_are_no_layers() -> None:
    tensors = [
        GraphTensor(("m/flat/Shape",), "Shape", (-1,), is_hidden=True),
        GraphTensor(("m/flat/Reshape",), "Reshape", (-1, 0)),
        GraphTensor(("m/flat/Reshape/shape",), "Pack", (0,), is_hidden=True),
        GraphTensor(("m/constant/Mul",), "Mul", ()),
        GraphTensor(("m/unused/Relu",), "Relu", (1,)),
        GraphTensor(("m/out/Mul",), "Mul", (1, 3), is_output=True),
    ]
    layers = find_layers(tensors)
    assert [(layer.path, layer.sources) for layer in layers] == [("flat", (-1,)), ("out", (0,))]


def test_one_layer_keeps_its_name() -> None:
    assert list_paths(make_chain(("dense/MatMul", "MatMul"), ("dense/BiasAdd", "BiasAdd"))) == [
        "dense"
    ]
    assert list_paths(make_chain(("add", "AddV2"))) == ["add"]
    assert find_layers([]) == []
