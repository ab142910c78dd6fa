"""Attention scores, heads and token grids of layers, compared with Keras itself."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import actgrid
from actgrid.errors import LayerError
from actgrid.rendering import TokenGrid

X = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(2, 8, 12, 3)).astype(np.float32)


def make_model(layer: Any, *, shape: tuple[int, ...] = (6, 8), **arguments: Any) -> Any:
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs, inputs, **arguments))


def extract(model: Any, path: str, x: Any = X) -> Any:
    return actgrid.Extractor(model, path)(x)[path]


def get_info(model: Any, path: str) -> Any:
    return next(info for info in actgrid.list_layers(model) if info.path == path)


# --- attention scores


@pytest.mark.parametrize("arguments", [{}, {"use_causal_mask": True}], ids=["all", "causal"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_scores_of_multi_head_attention(arguments: dict[str, Any], dropout: float) -> None:
    layer = layers.MultiHeadAttention(2, 4, dropout=dropout, name="mha")
    model = make_model(layer, **arguments)
    truth = layer(X, X, return_attention_scores=True, **arguments)[1]
    np.testing.assert_allclose(extract(model, "mha/attention"), truth, rtol=1e-5, atol=1e-6)
    info = get_info(model, "mha/attention")
    assert (info.kind, info.shape) == ("attention", (None, 2, 6, 6))
    assert info.axes == ("batch", "head", "query", "key")
    assert (info.channels, info.parameters, info.index) == (2, 0, None)


def test_scores_of_padded_tokens_are_zero() -> None:
    tokens = np.array([[1, 2, 3, 0], [4, 0, 0, 0]])
    inputs = keras.Input((4,), dtype="int32")
    embedding = layers.Embedding(5, 8, mask_zero=True)
    layer = layers.MultiHeadAttention(2, 4, dropout=0.1, name="mha")
    x = embedding(inputs)
    model = keras.Model(inputs, layer(x, x))
    scores = extract(model, "mha/attention", tokens)
    values = embedding(tokens)
    truth = layer(values, values, return_attention_scores=True)[1]
    np.testing.assert_allclose(scores, truth, rtol=1e-5, atol=1e-6)
    assert not scores[0, :, 0, 3].any()


def test_scores_over_two_axes_are_joined() -> None:
    layer = layers.MultiHeadAttention(2, 4, attention_axes=(1, 2), name="mha")
    model = make_model(layer, shape=(3, 4, 8))
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 8)).astype(np.float32)
    truth = np.asarray(layer(x, x, return_attention_scores=True)[1])
    assert truth.shape == (2, 2, 3, 4, 3, 4)
    scores = extract(model, "mha/attention", x)
    np.testing.assert_allclose(scores, truth.reshape(2, 2, 12, 12), rtol=1e-5, atol=1e-6)
    assert get_info(model, "mha/attention").grids == (
        *(None, None),
        *(TokenGrid(3, 4), TokenGrid(3, 4)),
    )


def test_scores_of_grouped_queries() -> None:
    layer = layers.GroupQueryAttention(4, 4, 2, name="grouped")
    model = make_model(layer)
    truth = layer(X, X, return_attention_scores=True)[1]
    np.testing.assert_allclose(extract(model, "grouped/attention"), truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("class_name", ["Attention", "AdditiveAttention"])
def test_scores_without_heads_have_one_head(class_name: str) -> None:
    layer = getattr(layers, class_name)(name="attend")
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layer([inputs, inputs]))
    truth = np.asarray(layer([X, X], return_attention_scores=True)[1])
    scores = extract(model, "attend/attention")
    np.testing.assert_allclose(scores, truth[:, None], rtol=1e-4, atol=1e-5)


def test_scores_of_attention_to_other_tokens() -> None:
    queries, values = keras.Input((3, 8)), keras.Input((6, 8))
    layer = layers.MultiHeadAttention(2, 4, name="cross")
    model = keras.Model([queries, values], layer(queries, values))
    x = [X[:, :3], X]
    truth = layer(*x, return_attention_scores=True)[1]
    scores = actgrid.Extractor(model, "cross/attention")(x)["cross/attention"]
    assert scores.shape == (2, 2, 3, 6)
    np.testing.assert_allclose(scores, truth, rtol=1e-5, atol=1e-6)


def test_scores_of_a_layer_called_twice() -> None:
    layer = layers.MultiHeadAttention(2, 4, name="mha")
    inputs = keras.Input((6, 8))
    once = layer(inputs, inputs)
    model = keras.Model(inputs, layer(once, once))
    scores = actgrid.Extractor(model, ["mha/attention", "mha/attention:1"])(X)
    first = layer(X, X)
    for path, x in (("mha/attention", X), ("mha/attention:1", first)):
        truth = layer(x, x, return_attention_scores=True)[1]
        np.testing.assert_allclose(scores[path], truth, rtol=1e-4, atol=1e-5)


def test_flash_attention_is_off_while_scores_are_captured() -> None:
    layer = layers.MultiHeadAttention(2, 4, flash_attention=True, name="mha")
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layer(inputs, inputs))
    with pytest.raises(ValueError, match="Flash attention"):  # which TensorFlow does not have
        model(X)
    scores = extract(model, "mha/attention")
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)
    assert layer._flash_attention is True


class RawAttention(layers.Layer):  # type: ignore[misc]
    """Attention with one projection, heads first, and a manual causal mask."""

    def __init__(self, heads: int, merge_batch: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.heads, self.merge_batch = heads, merge_batch
        self.project = layers.Dense(24, name="project")

    def compute_scores(self, x: Any) -> tuple[Any, Any]:
        length = x.shape[1]
        joint = tf.reshape(self.project(x), (-1, length, 3, self.heads, 8 // self.heads))
        query, key, value = tf.unstack(tf.transpose(joint, (2, 0, 3, 1, 4)))
        if self.merge_batch:
            query, key, value = (
                tf.reshape(part, (-1, length, 8 // self.heads)) for part in (query, key, value)
            )
        scores = tf.matmul(query, key, transpose_b=True) / 2
        mask = tf.linalg.band_part(tf.ones((length, length)), -1, 0)
        return tf.nn.softmax(scores - 1e9 * (1 - mask)), value

    def call(self, x: Any) -> Any:
        scores, value = self.compute_scores(x)
        attended = tf.matmul(scores, value)
        length = x.shape[1]
        attended = tf.reshape(attended, (-1, self.heads, length, 8 // self.heads))
        return x + tf.reshape(tf.transpose(attended, (0, 2, 1, 3)), (-1, length, 8))


@pytest.mark.parametrize("merge_batch", [False, True])
def test_scores_of_code_of_the_user(merge_batch: bool) -> None:
    layer = RawAttention(2, merge_batch, name="block")
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layer(inputs))
    truth = np.reshape(layer.compute_scores(X)[0], (2, 2, 6, 6))
    np.testing.assert_allclose(extract(model, "block/attention"), truth, rtol=1e-5, atol=1e-6)
    grid = actgrid.render_model(model, X, "block/attention")["block/attention"]
    assert len(grid.channels) == 2


def test_scores_that_a_model_computes_itself() -> None:
    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = layers.Dense(8), layers.Dense(8)

        def call(self, x: Any) -> Any:
            for _ in range(2):
                scores = tf.matmul(self.query(x), self.key(x), transpose_b=True)
                x = x + tf.matmul(tf.nn.softmax(scores), x)
            return x

    model = Net()
    model(X)
    scores = actgrid.Extractor(model, "attention*")(X)
    truth = tf.nn.softmax(tf.matmul(model.query(X), model.key(X), transpose_b=True))
    assert list(scores) == ["attention", "attention:1"]
    np.testing.assert_allclose(scores["attention"][:, 0], truth, rtol=1e-4, atol=1e-5)


def test_softmax_between_operations_is_its_own_attention() -> None:
    inputs = keras.Input((6, 8))
    query, key = (
        layers.Reshape((6, 2, 4), name=name)(layers.Dense(8)(inputs)) for name in ("query", "key")
    )
    scores = layers.Softmax(name="weights")(ops.einsum("bqhd,bkhd->bhqk", query, key))
    attended = layers.ReLU(name="attended")(ops.einsum("bhqk,bkhd->bqhd", scores, key))
    model = keras.Model(inputs, layers.Reshape((6, 8))(attended))
    kinds = {info.path: info.kind for info in actgrid.list_layers(model)}
    assert kinds["weights"] == "attention"
    assert kinds["query"] == kinds["attended"] == "heads"
    assert not any(path.endswith("/attention") for path in kinds)


def test_scores_of_a_model_of_strings() -> None:
    vectorize = layers.TextVectorization(output_sequence_length=4, vocabulary=["good", "film"])
    text = keras.Input((1,), dtype="string")
    x = layers.Embedding(4, 8)(vectorize(text))
    layer = layers.MultiHeadAttention(2, 4, name="mha")
    model = keras.Model(text, layer(x, x))
    scores = actgrid.Extractor(model, "mha/attention")(np.array([["a good film"]]))
    assert scores["mha/attention"].shape == (1, 2, 4, 4)


def test_scores_with_a_token_of_all_pixels() -> None:
    image = keras.Input((8, 8, 1))
    patches = layers.Reshape((4, 6))(layers.Conv2D(6, 4, 4)(image))
    token = layers.Reshape((1, 6))(layers.Dense(6)(layers.Flatten()(image)))
    x = layers.Concatenate(1)([token, patches])
    layer = layers.MultiHeadAttention(2, 3, name="mha")
    model = keras.Model(image, layer(x, x))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    tokens = keras.Model(image, x)(images)
    truth = layer(tokens, tokens, return_attention_scores=True)[1]
    scores = extract(model, "mha/attention", images)
    np.testing.assert_allclose(scores, truth, rtol=1e-4, atol=1e-5)
    assert get_info(model, "mha/attention").token_grid == TokenGrid(2, 2, 1)


@pytest.mark.parametrize("kind", ["dense", "repeated", "single"])
def test_scores_of_tokens_that_are_made_of_features(kind: str) -> None:
    inputs = keras.Input((6, 8))
    mean = layers.GlobalAveragePooling1D()(inputs)
    if kind == "dense":
        created = layers.Reshape((3, 8))(layers.Dense(24)(mean))
    elif kind == "repeated":
        created = layers.RepeatVector(3)(mean)
    else:
        created = layers.Reshape((1, 8))(layers.Dense(8)(mean))
    x = layers.Concatenate(1)([created, inputs])
    layer, other = (layers.MultiHeadAttention(2, 4, name=name) for name in ("mha", "cross"))
    model = keras.Model(inputs, [layer(x, x), other(created, inputs)])
    activations = actgrid.Extractor(model, "*/attention")(X)
    alone = actgrid.Extractor(model, "*/attention")(X[:1])
    assert list(alone) == list(activations)
    tokens = keras.Model(inputs, x)(X)
    count = created.shape[1]
    for path, queries, keys, own in (
        ("mha", tokens, tokens, layer),
        ("cross", tokens[:, :count], X, other),
    ):
        truth = own(queries, keys, return_attention_scores=True)[1]
        scores = activations[f"{path}/attention"]
        np.testing.assert_allclose(scores, truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 3, 5])
def test_scores_whatever_operations_made_the_tokens(heads: int) -> None:
    """Axes that cannot be followed are those that the attention layer expects."""
    inputs = keras.Input((6, 8))
    rows = ops.moveaxis(ops.reshape(inputs, (-1, 3, 2, 4, 2)), (1, 3), (2, 4))
    x = ops.reshape(ops.flip(rows, 2), (-1, 4, 12))
    layer = layers.MultiHeadAttention(heads, 4, name="mha")
    model = keras.Model(inputs, layer(x, x))
    tokens = keras.Model(inputs, x)(X)
    truth = layer(tokens, tokens, return_attention_scores=True)[1]
    np.testing.assert_allclose(extract(model, "mha/attention"), truth, rtol=1e-4, atol=1e-5)


def make_random_model(seed: int) -> tuple[Any, Any, list[str]]:
    """Return a random model with two attention layers, an input, and the paths of the scores."""
    random = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    data: Any
    width, heads, depth = (int(random.choice(options)) for options in ((6, 12), (1, 2, 3), (2, 4)))
    kind = ("image", "sequence", "tokens", "table")[seed % 4]
    if kind == "image":
        inputs = keras.Input((8, 12, 3))
        x = ops.reshape(layers.Conv2D(width, 4, 4)(inputs), (-1, 6, width))
        data = random.normal(size=(2, 8, 12, 3)).astype(np.float32)
    elif kind == "tokens":
        inputs = keras.Input((None,), dtype="int32")
        x = layers.Embedding(9, width, mask_zero=bool(random.integers(2)))(inputs)
        data = random.integers(0, 9, (2, 5))
    else:
        inputs = keras.Input((5, 7) if kind == "sequence" else (10,))
        x = layers.Dense(width)(inputs if kind == "sequence" else layers.Reshape((5, 2))(inputs))
        data = random.normal(size=(2, *inputs.shape[1:])).astype(np.float32)
    for layer in (
        layers.LayerNormalization(),
        layers.Conv1D(width, 3, padding="same"),
        layers.Bidirectional(layers.GRU(width // 2, return_sequences=True)),
    ):
        x = layer(x) if random.integers(2) else x
    for block in range(2):
        if random.integers(2):
            layer = layers.MultiHeadAttention(heads, depth, name=f"attend{block}")
        else:
            layer = layers.GroupQueryAttention(depth, 2 * heads, heads, name=f"attend{block}")
        y = layers.LayerNormalization()(x) if random.integers(2) else x
        x = layers.Add()([x, layer(y, y)])
        x = layers.Add()([x, layers.Dense(width)(layers.Dense(2 * width, "gelu")(x))])
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, outputs), data, ["attend0/attention", "attend1/attention"]


@pytest.mark.parametrize("seed", range(8))
def test_every_attention_layer_is_found(seed: int) -> None:
    model, x, paths = make_random_model(seed)
    assert [info.path for info in actgrid.list_layers(model) if info.path in paths] == paths
    scores = actgrid.Extractor(model, paths)(x)
    alone = actgrid.Extractor(model, paths)(x[:1])
    for path in paths:
        assert scores[path].ndim == 4
        np.testing.assert_allclose(alone[path], scores[path][:1], rtol=1e-3, atol=1e-5)
        rows = scores[path].sum(-1)
        assert np.logical_or(np.isclose(rows, 1, atol=1e-3), rows == 0).all()  # 0: padding


def test_names_of_missing_attention_list_layers() -> None:
    model = make_model(layers.MultiHeadAttention(2, 4, name="mha"))
    with pytest.raises(LayerError, match="no layer is called 'mha/attentoin'"):
        actgrid.Extractor(model, "mha/attentoin")
    dense = keras.Sequential([keras.Input((6, 8)), layers.Dense(3, name="dense")])
    with pytest.raises(LayerError, match="no layer is called 'dense/attention'"):
        actgrid.Extractor(dense, "dense/attention")(X)


def test_attention_is_selected_apart_from_its_layer() -> None:
    layer = layers.MultiHeadAttention(2, 4, name="mha")
    model = make_model(layer)
    assert list(actgrid.Extractor(model, "mha")(X)) == ["mha"]
    assert list(actgrid.Extractor(model, layer)(X)) == ["mha"]
    assert list(actgrid.Extractor(model, layers.MultiHeadAttention)(X)) == ["mha"]
    assert list(actgrid.Extractor(model)(X)) == ["mha/attention", "mha"]


# --- kinds and drawing


def test_heads_are_tiles_in_every_part_of_attention() -> None:
    model = make_model(layers.MultiHeadAttention(2, 4, name="mha"))
    kinds = {info.path: (info.kind, info.channels) for info in actgrid.list_layers(model)}
    assert kinds["mha/query"] == kinds["mha/value"] == ("heads", 2)
    assert kinds["mha"] == ("sequence", 8)
    grids = actgrid.render_model(model, X, ["mha/query", "mha/attention"], columns=2, padding=0)
    assert grids["mha/query"].levels.shape == (6, 8)
    assert grids["mha/attention"].levels.shape == (6, 12)
    scores = extract(model, "mha/attention")
    alone = actgrid.render(scores[0, 1][None, ..., None])
    np.testing.assert_array_equal(grids["mha/attention"].tile(1), alone.levels)
    np.testing.assert_allclose(grids["mha/attention"].stats.max, scores[0].max((1, 2)), rtol=1e-6)
    assert "a tile for each head" in grids["mha/attention"].note


def test_statistics_have_an_entry_for_each_head(tmp_path: Any) -> None:
    image = keras.Input((8, 12, 3))
    x = layers.Reshape((6, 8))(layers.Conv2D(8, 4, 4)(image))
    model = keras.Model(image, layers.MultiHeadAttention(2, 4, name="mha")(x, x))
    paths = ["mha/attention", "mha/query"]
    pixels = np.random.default_rng(2).integers(0, 256, IMAGES.shape, np.uint8)
    stats = actgrid.measure_images(model, pixels, paths)
    scaled = pixels / np.float32(255)
    scores = extract(model, "mha/attention", scaled)
    query = extract(model, "mha/query", scaled)
    measured = stats.layers["mha/attention"]
    np.testing.assert_allclose(measured.max, scores.max((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(stats.layers["mha/query"].min, query.min((0, 1, 3)), rtol=1e-4)
    stats.save(tmp_path / "stats.npz")
    loaded = actgrid.DatasetStats.load(tmp_path / "stats.npz")
    assert loaded.layers["mha/attention"].info == measured.info


def test_sequences_and_images_without_attention_keep_their_kinds() -> None:
    inputs = keras.Input((6, 8))
    x = layers.Reshape((6, 2, 4), name="split")(layers.Conv1D(8, 3, padding="same")(inputs))
    x = layers.Conv2D(3, 3, padding="same", name="conv")(x)
    model = keras.Model(inputs, layers.LSTM(4, name="lstm")(layers.Reshape((6, 6))(x)))
    kinds = {info.path: info.kind for info in actgrid.list_layers(model)}
    assert (kinds["split"], kinds["conv"]) == ("image", "image")
    assert all(not any(info.grids) for info in actgrid.list_layers(model))


# --- token grids


class Tokens(layers.Layer):  # type: ignore[misc]
    """Add tokens before and after patches."""

    def __init__(self, before: int, after: int, **options: Any) -> None:
        super().__init__(**options)
        self.before, self.after = before, after

    def call(self, patches: Any) -> Any:
        token = ops.mean(patches, 1, keepdims=True)
        return ops.concatenate([token] * self.before + [patches] + [token] * self.after, 1)


def make_patches(image: Any, kind: str) -> Any:
    """Return the patches of images (8, 12, 3), 4 x 4 pixels each: a grid of 2 x 3."""
    if kind == "convolution":
        return layers.Reshape((6, 5))(layers.Conv2D(5, 4, 4)(image))
    if kind == "extracted":
        patches = layers.Lambda(
            lambda x: tf.reshape(
                tf.image.extract_patches(x, [1, 4, 4, 1], [1, 4, 4, 1], [1] * 4, "VALID"),
                (tf.shape(x)[0], -1, 48),
            ),
            output_shape=(6, 48),
        )(image)
        return layers.Dense(5)(patches)
    split = ops.reshape(image, (-1, 2, 4, 3, 4, 3))
    return layers.Dense(5)(ops.reshape(ops.transpose(split, (0, 1, 3, 2, 4, 5)), (-1, 6, 48)))


@pytest.mark.parametrize("kind", ["convolution", "extracted", "reshaped"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (5, 0), (2, 1)])
def test_token_grid_is_found(kind: str, before: int, after: int) -> None:
    image = keras.Input((8, 12, 3))
    x = make_patches(image, kind)
    if before or after:
        x = Tokens(before, after)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(1, 5, name="mha")(x, x)])
    x = layers.LayerNormalization(name="norm")(x)
    model = keras.Model(image, layers.Dense(2)(x[:, 0]))
    grid = TokenGrid(2, 3, before, after)
    assert get_info(model, "norm").token_grid == grid
    assert get_info(model, "mha/attention").grids[2:] == (grid, grid)
    drawn = actgrid.render_model(model, IMAGES, "norm", columns=5, padding=0)["norm"]
    values = extract(model, "norm", IMAGES)
    by_hand = values[0, before : before + 6].reshape(2, 3, 5)
    np.testing.assert_array_equal(
        drawn.levels, actgrid.render(by_hand[None], columns=5, padding=0).levels
    )
    assert (
        actgrid.render_model(model, IMAGES, "norm", kind="sequence")["norm"].levels.shape
        == (values.shape[1:])
    )


def test_sliced_tokens_keep_or_lose_their_grid() -> None:
    image = keras.Input((8, 12, 3))
    x = Tokens(2, 1)(make_patches(image, "convolution"))
    names = {
        "patches": layers.LayerNormalization(name="patches")(x[:, 2:-1]),
        "later": layers.LayerNormalization(name="later")(x[:, 1:]),
        "some": layers.LayerNormalization(name="some")(x[:, 3:]),
        "first": layers.LayerNormalization(name="first")(x[:, :2]),
    }
    model = keras.Model(image, list(names.values()))
    grids = {name: get_info(model, name).token_grid for name in names}
    assert grids == {
        "patches": TokenGrid(2, 3),
        "later": TokenGrid(2, 3, 1, 1),
        "some": None,
        "first": None,
    }
    assert get_info(model, "some").lacks_grid


def test_grid_of_an_image_without_fixed_size_is_that_of_the_input() -> None:
    image = keras.Input((None, None, 3))
    x = layers.Reshape((-1, 5))(layers.Conv2D(5, 4, 4)(image))
    model = keras.Model(image, layers.LayerNormalization(name="norm")(x))
    assert get_info(model, "norm").lacks_grid
    extractor = actgrid.Extractor(model, "norm")
    grid = actgrid.render_model(extractor, IMAGES, columns=5, padding=0)["norm"]
    assert extractor.layers["norm"].token_grid == TokenGrid(2, 3)
    assert grid.levels.shape == (2, 15)


def test_unknown_grids_are_said() -> None:
    image = keras.Input((8, 12, 3))
    x = make_patches(image, "convolution")[:, 2:]
    model = keras.Model(image, layers.LayerNormalization(name="norm")(x))
    (grid,) = actgrid.render_model(model, IMAGES, "norm").values()
    assert grid.levels.shape == (4, 5)
    assert "pass token_grid=(height, width)" in grid.note
    (drawn,) = actgrid.render_model(model, IMAGES, "norm", token_grid=(2, 2)).values()
    assert len(drawn.channels) == 5
    assert not drawn.note


def test_tokens_that_mix_positions_have_no_grid() -> None:
    image = keras.Input((8, 12, 3))
    x = make_patches(image, "convolution")
    mixed = layers.Dense(7, name="mixed")(layers.Permute((2, 1))(x))
    back = layers.Permute((2, 1), name="back")(layers.Dense(6)(mixed))
    model = keras.Model(image, layers.Add(name="sum")([x, back]))
    assert get_info(model, "mixed").token_grid is None
    assert get_info(model, "back").token_grid is None
    assert get_info(model, "sum").token_grid == TokenGrid(2, 3)


def test_tokens_of_windows_have_the_grid_of_a_window() -> None:
    image = keras.Input((8, 12, 3))
    x = ops.transpose(ops.reshape(image, (-1, 2, 4, 3, 4, 3)), (0, 1, 3, 2, 4, 5))
    x = ops.reshape(x, (-1, 16, 3))
    x = layers.MultiHeadAttention(1, 3, name="mha")(x, x)
    x = ops.reshape(x, (-1, 2, 3, 4, 4, 3))
    merged = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 8, 12, 3))
    model = keras.Model(image, layers.ReLU(name="merged")(merged))
    assert get_info(model, "mha").token_grid == TokenGrid(4, 4)
    assert get_info(model, "merged").kind == "image"
    assert extract(model, "mha/attention", IMAGES).shape == (12, 1, 16, 16)
