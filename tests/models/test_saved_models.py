"""SavedModels: layers, values and gradients equal those of the program that was exported."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

import actgrid
from actgrid import Extractor, list_layers, load_model
from actgrid.errors import CapabilityError, LayerError, ModelError
from actgrid.models.networks import get_network
from actgrid.models.preprocessing import find_preprocessing

Array = npt.NDArray[Any]
_TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


def make_input(*shape: int) -> Array:
    return np.random.default_rng(5).random(shape, np.float32)


def export(model: Any, folder: Path) -> Any:
    model.export(folder, verbose=False)
    return load_model(folder)


@pytest.fixture(scope="module")
def demo_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "demo"
    actgrid.demo.model().export(folder, verbose=False)
    return folder


# --- Keras models: the same layers


def test_embedded_network_keeps_its_layers(demo_export: Path) -> None:
    model, network = actgrid.demo.model(), load_model(str(demo_export))
    assert network.name == "demo"
    expected = [(info.path, info.shape, info.dtype, info.parameters) for info in list_layers(model)]
    infos = list_layers(network)
    assert [(info.path, info.shape, info.dtype, info.parameters) for info in infos] == expected
    assert {info.type for info in infos if info.path.endswith("conv")} == {
        "Conv2D",
        "DepthwiseConv2dNative",
    }
    x = make_input(2, 224, 224, 3) * 255
    truth = Extractor(model, "*")(x)
    activations = Extractor(network, "*")(x)
    for path, activation in activations.items():
        scale = np.abs(truth[path]).max()
        np.testing.assert_allclose(activation, truth[path], rtol=1e-4, atol=1e-5 * scale)
    assert network.outputs == ["predictions"]
    assert set(network.list_edges()) >= {
        ("image", "rescaling"),
        ("block1_project_bn", "block2_add"),
        ("block2_project_bn", "block2_add"),
    }
    assert find_preprocessing("auto", network).name == "none"


def make_nested_model() -> Any:
    inner_input = keras.Input((6, 6, 4))
    inner = keras.Model(inner_input, layers.Conv2D(3, 3, name="conv")(inner_input), name="inner")
    inputs = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv2d_1")
    x = layers.Conv2D(3, 1, name="conv2d")(inputs)
    x = shared(layers.Conv2D(3, 1, name="conv2d_2")(shared(x)))
    x = layers.Cropping2D(1, name="crop")(x)
    x = layers.BatchNormalization(name="norm")(inner(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="dense")(x))


class SubclassedModel(keras.Model):  # type: ignore[misc]
    """Model that is not functional, with a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv1D(4, 3, name="conv")
        self.lstm = layers.LSTM(5, return_sequences=True, name="lstm")
        parts = [layers.Dense(3, name="first"), layers.ReLU(name="relu")]
        self.head = keras.Sequential(parts, name="head")

    def call(self, inputs: Any) -> Any:
        return self.head(self.lstm(self.conv(inputs)) * 2)


def make_subclassed_model() -> Any:
    model = SubclassedModel()
    model(make_input(1, 8, 2))
    return model


def make_transformer() -> Any:
    inputs = keras.Input((6, 8), name="tokens")
    attended = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = layers.LayerNormalization(name="norm")(layers.Add(name="add")([inputs, attended]))
    return keras.Model(inputs, layers.Dense(3, name="dense")(x))


@pytest.mark.parametrize(
    ("make_model", "shape", "visible"),
    [
        (
            make_nested_model,
            (2, 8, 8, 3),
            "conv2d conv2d_1 conv2d_2 conv2d_1:1 crop inner/conv norm pool dense",
        ),
        (make_subclassed_model, (2, 8, 2), "conv lstm head/first head/relu"),
        (
            make_transformer,
            (2, 6, 8),
            "attention/query attention/key attention/attention_output add norm dense",
        ),
    ],
)
def test_layers_of_other_keras_models_have_their_values(
    make_model: Callable[[], Any], shape: tuple[int, ...], visible: str, tmp_path: Path
) -> None:
    model = make_model()
    network = export(model, tmp_path / "saved")
    x = make_input(*shape)
    truth, activations = Extractor(model, "*")(x), Extractor(network, "*")(x)
    common = [path for path in truth if path in activations]
    assert set(visible.split()) <= set(common)
    for path in common:
        np.testing.assert_allclose(activations[path], truth[path], **_TOLERANCE, err_msg=path)
    (output,) = network.outputs
    np.testing.assert_allclose(
        activations[output], np.asarray(model(x, training=False)), **_TOLERANCE
    )


def test_integer_inputs_and_volumes(tmp_path: Path) -> None:
    tokens = keras.Sequential(
        [keras.Input((10,), dtype="int32"), layers.Embedding(20, 6, name="embedding")]
    )
    network = export(tokens, tmp_path / "tokens")
    x = np.arange(10)[None]  # int64
    truth = tokens.layers[0].embeddings.numpy()[x]
    np.testing.assert_array_equal(Extractor(network, "embedding")(x)["embedding"], truth)
    parts = [layers.Conv3D(3, 2, name="conv"), layers.MaxPooling3D(name="pool")]
    head = [
        layers.UpSampling3D(name="up"),
        layers.Flatten(name="flat"),
        layers.Dense(2, name="dense"),
    ]
    volumes = keras.Sequential([keras.Input((4, 6, 6, 2)), *parts, *head])
    network = export(volumes, tmp_path / "volumes")
    assert [info.path for info in list_layers(network)] == ["conv", "pool", "up", "flat", "dense"]
    volume = make_input(1, 4, 6, 6, 2)
    pair = [actgrid.explain(each, volume, "gradcam")[0] for each in (volumes, network)]
    assert pair[1].layer == "conv"
    np.testing.assert_allclose(pair[1].values, pair[0].values, rtol=1e-4, atol=1e-6)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    second, first = keras.Input((3,), name="zeta"), keras.Input((4,), name="alpha.b-1")
    total = layers.Dense(5, name="total")(layers.Concatenate(name="join")([second, first]))
    difference = layers.Dense(2, name="difference")(second)
    model = keras.Model([second, first], {"b": total, "a": difference})
    network = export(model, tmp_path / "saved")
    x = {"zeta": make_input(2, 3), "alpha.b-1": make_input(2, 4) + 1}
    truth = model(x)
    activations = Extractor(network, "*")(x)
    for path, key in (("total", "b"), ("difference", "a")):
        np.testing.assert_allclose(activations[path], truth[key], **_TOLERANCE)
    assert sorted(network.outputs) == ["difference", "total"]
    assert {info.name: info.shape for info in network.inputs} == {
        "zeta": (None, 3),
        "alpha.b-1": (None, 4),
    }
    first, _ = actgrid.explain(network, x, "saliency", target={"total": 1}, image_input="zeta")
    weights = model.get_layer("total").kernel.numpy()
    np.testing.assert_allclose(np.ravel(first.values), np.abs(weights[:3, 1]), rtol=1e-5)


def test_calls_of_shared_layers_have_the_numbers_of_the_keras_model(tmp_path: Path) -> None:
    left, right = keras.Input((6, 3), name="left"), keras.Input((6, 3), name="right")
    conv = layers.Conv1D(4, 3, name="conv")
    pools = [
        layers.GlobalAveragePooling1D(name=f"pool_of_{side.name}")(conv(side))
        for side in (left, right)
    ]
    model = keras.Model([left, right], layers.Concatenate(name="join")(pools))
    x = {"left": make_input(2, 6, 3), "right": make_input(2, 6, 3) + 1}
    activations = Extractor(export(model, tmp_path / "saved"), "*")(x)
    truth = Extractor(model, "*")(x)
    assert activations.keys() == truth.keys()
    for path, values in truth.items():
        np.testing.assert_allclose(activations[path], values, **_TOLERANCE)


@pytest.mark.parametrize("axis", ["channels_first", "channels_last"])
def test_data_format_is_found(tmp_path: Path, axis: str) -> None:
    kernel = tf.Variable(make_input(3, 3, 3, 5))

    def convolve(image: Any) -> Any:
        # A CPU without oneDNN convolves channels-last images only.
        if axis == "channels_first":
            image = tf.transpose(image, (0, 2, 3, 1))
        with tf.name_scope("conv"):
            convolved = tf.nn.conv2d(image, kernel, 1, "SAME")
        with tf.name_scope("relu"):
            activated = tf.nn.relu(convolved)
        if axis == "channels_first":
            with tf.name_scope("back"):
                activated = tf.transpose(activated, (0, 3, 1, 2))
        return tf.nn.relu(activated, name="last")

    shape = (None, 3, 8, 6) if axis == "channels_first" else (None, 8, 6, 3)
    network = save_function(convolve, tmp_path, tf.TensorSpec(shape, name="image"), kernel)
    (info,) = network.inputs
    assert info.data_format == axis
    infos = {info.path: info for info in list_layers(network)}
    assert infos["relu"].data_format == "channels_last"
    assert infos["last"].data_format == axis
    assert infos["last"].channels == 5
    grid = actgrid.render_model(network, make_input(1, *shape[1:]), "last")["last"]
    assert grid.tile(4).shape[:2] == (8, 6)


# --- other programs


def save_function(function: Callable[..., Any], folder: Path, spec: Any, *variables: Any) -> Any:
    module = tf.Module()
    module.variables_ = variables
    module.serve = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return load_model(folder)


def test_module_with_several_inputs(tmp_path: Path) -> None:
    class Both(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, 3))] * 2)  # type: ignore[untyped-decorator]
        def __call__(self, left: Any, right: Any) -> Any:
            return {"difference": left - 2 * right}

    module = Both()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    x = {"left": make_input(2, 3), "right": make_input(2, 3) * 2}
    network = load_model(tmp_path)
    (path,) = network.outputs
    outputs = Extractor(network, path)(x)
    np.testing.assert_allclose(outputs[path], x["left"] - 2 * x["right"], rtol=1e-6)


def test_scopes_and_control_flow(tmp_path: Path) -> None:
    weights = tf.Variable(make_input(4, 4), name="weights")

    def run(x: Any) -> Any:
        with tf.name_scope("stem"):
            x = tf.nn.relu(tf.matmul(x, weights))
        with tf.name_scope("loop"):
            x = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 2), (0, x))[1]
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x + 1, lambda: x - 1), tf.argmax(x, 1)

    network = save_function(run, tmp_path, tf.TensorSpec((None, 4), name="x"), weights)
    x = make_input(3, 4)
    activations = Extractor(network, "*")(x)
    stem = np.maximum(x @ weights.numpy(), 0)
    np.testing.assert_allclose(activations["stem"], stem, rtol=1e-6)
    np.testing.assert_allclose(activations["loop"], 8 * stem, rtol=1e-6)
    branch, index = (activations[path] for path in network.outputs)
    np.testing.assert_allclose(branch, 8 * stem + 1, rtol=1e-6)
    np.testing.assert_array_equal(index, stem.argmax(1))
    infos = {info.path: info for info in list_layers(network)}
    assert infos["stem"].parameters == 16
    assert infos["stem"].type == "MatMul"


def test_functions_that_xla_compiles_are_inlined(tmp_path: Path) -> None:
    inner = tf.function(lambda x: tf.nn.relu(x, name="Relu") * 2, jit_compile=True)
    network = save_function(inner, tmp_path, tf.TensorSpec((None, 3)))
    x = make_input(2, 3)
    outputs = Extractor(network, "*")(x)
    assert list(outputs) == ["Relu", "mul"]
    np.testing.assert_allclose(outputs["mul"], 2 * np.maximum(x, 0))
    gradient = actgrid.explain(network, x, "saliency", 0).values
    np.testing.assert_allclose(gradient[:, 0], 2 * (x[:, 0] > 0))


def test_tensorflow_1_graph(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 6, 6, 3), "x")
        with v1.variable_scope("net"):
            kernel = v1.get_variable("kernel", (3, 3, 3, 4), use_resource=True)
            with tf.name_scope("conv"):
                y = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID"))
            with tf.name_scope("pool"):
                z = tf.reduce_mean(y, (1, 2))
        session.run(v1.global_variables_initializer())
        values = session.run(kernel)
        builder = v1.saved_model.Builder(str(tmp_path / "old"))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"z": z})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    network = load_model(tmp_path / "old")
    image = make_input(2, 6, 6, 3)
    activations = Extractor(network, "*")(image)
    truth = np.maximum(tf.nn.conv2d(image, values, 1, "VALID").numpy(), 0)
    np.testing.assert_allclose(activations["conv"], truth, **_TOLERANCE)
    np.testing.assert_allclose(activations["pool"], truth.mean((1, 2)), **_TOLERANCE)


def test_constant_outputs_and_unused_inputs(tmp_path: Path) -> None:
    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, 3))] * 2)  # type: ignore[untyped-decorator]
        def serve(self, used: Any, unused: Any) -> Any:
            return {"constant": tf.ones((1, 2)), "same": used, "twice": used * 2}

        @tf.function(input_signature=[tf.TensorSpec((None, 3))])  # type: ignore[untyped-decorator]
        def ignore(self, x: Any) -> Any:
            return tf.zeros((1, 2))

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "a"), signatures=module.serve)
    network = load_model(tmp_path / "a")
    x = {"used": make_input(2, 3), "unused": make_input(2, 3)}
    unchanged, doubled = network.outputs
    outputs = Extractor(network, "*")(x)
    np.testing.assert_array_equal(outputs[unchanged], x["used"])
    np.testing.assert_array_equal(outputs[doubled], x["used"] * 2)
    tf.saved_model.save(module, str(tmp_path / "b"), signatures=module.ignore)
    with pytest.raises(ModelError, match="no output that depends on an input"):
        load_model(tmp_path / "b")
    with pytest.raises(ModelError, match="does not tell the number of axes of its input 'x'; exp"):
        save_function(lambda x: x * 2, tmp_path / "c", tf.TensorSpec(None))


def test_optimizer_of_keras_2_is_ignored(tmp_path: Path) -> None:
    model = make_nested_model()
    model.export(tmp_path / "saved", verbose=False)
    graph = saved_model_pb2.SavedModel.FromString(
        (tmp_path / "saved" / "saved_model.pb").read_bytes()
    )
    # Optimizers of Keras 2 have slots, whose class only Keras 2 knows.
    nodes = graph.meta_graphs[0].object_graph_def.nodes
    first, second, *_ = (i for i, node in enumerate(nodes) if node.HasField("variable"))
    owner = next(node for node in nodes if node.user_object.identifier == "trackable_list_wrapper")
    owner.user_object.identifier = "optimizer"
    slot = owner.slot_variables.add()
    slot.slot_name, slot.original_variable_node_id = "m", first
    slot.slot_variable_node_id = second
    (tmp_path / "saved" / "saved_model.pb").write_bytes(graph.SerializeToString())
    network = load_model(tmp_path / "saved")
    x = make_input(2, 8, 8, 3)
    output = Extractor(network, "dense")(x)["dense"]
    np.testing.assert_allclose(output, model.predict(x, verbose=0), **_TOLERANCE)


# --- gradients, replaced layers, comparisons


def test_gradients_equal_those_of_a_tape(tmp_path: Path) -> None:
    model = make_nested_model()
    network = export(model, tmp_path / "saved")
    x = make_input(2, 8, 8, 3)
    logits = keras.Model(model.inputs, model.get_layer("pool").output)
    kernel, bias = (weight.numpy() for weight in model.get_layer("dense").weights)
    with tf.GradientTape() as tape:
        image = tf.constant(x)
        tape.watch(image)
        score = (logits(image) @ kernel + bias)[:, 1]
    truth = np.abs(tape.gradient(score, image).numpy()).max(-1)
    attributions = actgrid.explain(network, x, "saliency", target=1)
    for attribution, expected in zip(attributions, truth, strict=True):
        np.testing.assert_allclose(np.squeeze(attribution.values), expected, rtol=1e-4, atol=1e-7)
    methods = "gradcam", "guided_backprop", "lrp", "ablationcam", "occlusion"
    compare_explanations(model, network, x, *methods)


def compare_explanations(model: Any, network: Any, x: Array, *methods: str) -> None:
    for method in methods:
        pair = [actgrid.explain(each, x, method, target=1)[0] for each in (model, network)]
        assert pair[1].layer == pair[0].layer, method
        scale = np.abs(pair[0].values).max()
        np.testing.assert_allclose(
            pair[1].values, pair[0].values, rtol=1e-3, atol=1e-4 * scale, err_msg=method
        )


def test_custom_gradients(tmp_path: Path) -> None:
    parts = [
        layers.Conv2D(4, 3, activation="swish", name="conv"),
        layers.Conv2D(4, 3, activation="silu", name="second"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(6, activation="swish", name="hidden"),
        layers.Dense(3, name="out"),
    ]
    model = keras.Sequential([keras.Input((9, 9, 3)), *parts])
    network = export(model, tmp_path / "saved")
    methods = "saliency", "integrated_gradients", "gradcam", "smoothgrad"
    compare_explanations(model, network, make_input(1, 9, 9, 3), *methods)


def test_recurrent_layers_and_sequences(tmp_path: Path) -> None:
    parts = [
        layers.Conv1D(4, 3, name="conv"),
        layers.MaxPooling1D(name="pool"),
        layers.LSTM(5, return_sequences=True, name="lstm"),
        layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both"),
        layers.GlobalAveragePooling1D(name="mean"),
        layers.Dense(2, name="out"),
    ]
    recurrent = keras.Sequential([keras.Input((12, 3)), *parts])
    network = export(recurrent, tmp_path / "recurrent")
    infos = list_layers(network)
    assert sum(info.parameters for info in infos) == recurrent.count_params()
    sources = {source for source, _ in network.list_edges()}
    assert all(info.path in sources or info.path == "out" for info in infos)
    assert all(info.shape[0] is None for info in infos)
    x = make_input(1, 12, 3)
    compare_explanations(recurrent, network, x, "saliency", "gradcam")
    assert len(actgrid.diagram(network).boxes) > 6
    head = layers.Dense(2, name="head")
    convolutional = keras.Sequential([keras.Input((12, 3)), *parts[:2], parts[4], head])
    network = export(convolutional, tmp_path / "convolutional")
    compare_explanations(convolutional, network, x, "gradcam")


def test_tokens_are_explained_at_the_embedding(tmp_path: Path) -> None:
    parts = [
        layers.Embedding(20, 6, name="embedding"),
        layers.Conv1D(4, 3, name="conv"),
        layers.GlobalMaxPooling1D(name="pool"),
        layers.Dense(2, name="out"),
    ]
    model = keras.Sequential([keras.Input((10,), dtype="int32"), *parts])
    network = export(model, tmp_path / "saved")
    x = np.arange(10, dtype=np.int32)[None]
    compare_explanations(model, network, x, "saliency", "integrated_gradients", "lime", "gradcam")


def test_layers_can_be_replaced(tmp_path: Path) -> None:
    model = make_nested_model()
    model.get_layer("inner").get_layer("conv").bias.assign([1, 2, 3])
    network = get_network(export(model, tmp_path / "saved"))
    x = make_input(2, 8, 8, 3)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(inputs: Any) -> Any:
        replacements = {"pool": lambda y: y * 2, "norm": lambda y: y + 1, "crop": tf.zeros_like}
        trace = network.trace_with_replacements(inputs, replacements)  # type: ignore[attr-defined]
        return {call.info.path: call.tensor for call in trace.calls}

    values = run(tf.constant(x))
    assert not values["crop"].numpy().any()
    bias = np.asarray(model.get_layer("inner").get_layer("conv").bias)
    np.testing.assert_allclose(values["inner/conv"], np.broadcast_to(bias, (2, 4, 4, 3)))
    np.testing.assert_allclose(values["pool"], values["norm"].numpy().mean((1, 2)) * 2, rtol=1e-5)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def replace_missing(inputs: Any) -> Any:
        return network.trace_with_replacements(inputs, {"pol": lambda y: y}).results  # type: ignore[attr-defined]

    with pytest.raises(LayerError, match="pol"):
        replace_missing(tf.constant(x))


def test_comparison_with_the_keras_model(demo_export: Path, tmp_path: Path) -> None:
    layers = ["stem_*", "head_*", "predictions"]
    comparison = actgrid.compare_models("demo", demo_export, "demo", layers)
    assert len(comparison.layers) == 7
    assert comparison.to_frame()["relative_difference"].max() < 1e-3
    pictures = actgrid.render_comparison("demo", demo_export, "demo", "stem_relu")
    assert pictures["stem_relu"].difference is not None


def test_pickle(tmp_path: Path) -> None:
    network = save_function(lambda x: x * 2, tmp_path, tf.TensorSpec((None, 3)))
    restored = pickle.loads(pickle.dumps(network))
    x = make_input(2, 3)
    np.testing.assert_array_equal(Extractor(restored, "*")(x)["mul"], 2 * x)
    text = f"<SavedModelNetwork {tmp_path.name!r} from x (None, 3) to mul>"
    assert repr(restored) == repr(network) == text


def test_changed_weights_have_another_fingerprint(tmp_path: Path) -> None:
    model = make_transformer()
    first = export(model, tmp_path / "a")
    second = load_model(shutil.copytree(tmp_path / "a", tmp_path / "b"))
    assert first.fingerprint() == second.fingerprint()
    model.get_layer("dense").bias.assign([1, 2, 3])
    assert export(model, tmp_path / "c").fingerprint() != first.fingerprint()


def test_objects_and_files_of_a_folder_are_refused_with_advice(tmp_path: Path) -> None:
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, [tf.TensorSpec([None, 3])])
    tf.saved_model.save(module, tmp_path, module.double)
    loaded = tf.saved_model.load(tmp_path)
    for value, advice in [
        (loaded, r"not what tf\.saved_model\.load returns: give the path of the folder$"),
        (loaded.signatures["serving_default"], "concrete function of TensorFlow: give the folder"),
        (tmp_path / "saved_model.pb", "is part of a SavedModel: give the folder"),
    ]:
        with pytest.raises(ModelError, match=advice):
            actgrid.load_model(value)


def test_what_an_export_cannot_do(tmp_path: Path) -> None:
    network = export(make_transformer(), tmp_path / "saved")
    x = make_input(1, 6, 8)
    with pytest.raises(CapabilityError, match="training=True is not supported"):
        Extractor(network, training=True)(x)
    with pytest.raises(CapabilityError, match="patch needs a Keras model"):
        actgrid.patch(network, {"dense": 0})
    with pytest.raises(LayerError, match="did you mean dense"):
        Extractor(network, "dens")(x)
