"""Transformers of KerasHub with random weights: attention, kinds of layers, token grids."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import actgrid
from actgrid.rendering import TokenGrid

with warnings.catch_warnings():  # of KerasHub and the packages that it imports
    warnings.simplefilter("ignore")
    keras_hub = pytest.importorskip("keras_hub")

# T5 has layers that do not support the masks of its embeddings.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")

TEXT = {"vocabulary_size": 50, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
VISION = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "image_shape": (32, 32, 3),
    "patch_size": 8,
}
IDS = np.array([[3, 4, 5, 6, 7, 0], [8, 9, 1, 0, 0, 0]])
TOKENS = {"token_ids": IDS, "padding_mask": (IDS > 0).astype("int32")}
IMAGES = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)


def make_clip() -> Any:
    vision = keras_hub.models.CLIPVisionEncoder(**VISION)
    text = keras_hub.models.CLIPTextEncoder(
        embedding_dim=16, num_heads=2, max_sequence_length=6, **TEXT
    )
    return keras_hub.models.CLIPBackbone(vision, text, 8)


# Model, input, paths of the attention, heads, and the grid of image tokens.
MODELS: dict[str, tuple[Callable[[], Any], Any, str, int, TokenGrid | None]] = {
    "ViT": (
        lambda: keras_hub.models.ViTBackbone(
            **{name: value for name, value in VISION.items() if name != "intermediate_dim"},
            mlp_dim=32,
        ),
        IMAGES,
        "vit_encoder/transformer_block_{}/mha",
        2,
        TokenGrid(4, 4, 1),
    ),
    "DeiT": (
        lambda: keras_hub.models.DeiTBackbone(**VISION),
        IMAGES,
        "deit_encoder/transformer_block_{}/mha",
        2,
        TokenGrid(4, 4, 2),
    ),
    "DINOv2 with registers": (
        lambda: keras_hub.models.DINOV2Backbone(
            **VISION,
            num_register_tokens=3,
            position_embedding_shape=(32, 32, 3),
            use_mask_token=False,
        ),
        IMAGES,
        "encoder/layers_{}/attention/attention",
        2,
        TokenGrid(4, 4, 4),
    ),
    "SwinTransformer": (
        lambda: keras_hub.models.SwinTransformerBackbone(
            image_shape=(32, 32, 3),
            embed_dim=8,
            depths=(1, 1),
            num_heads=(2, 4),
            window_size=4,
            patch_size=2,
        ),
        IMAGES,
        "stage_{}/blocks_0/attn",
        2,
        TokenGrid(4, 4),
    ),
    "BERT": (
        lambda: keras_hub.models.BertBackbone(num_heads=2, max_sequence_length=6, **TEXT),
        {**TOKENS, "segment_ids": np.zeros_like(IDS)},
        "transformer_layer_{}/self_attention_layer",
        2,
        None,
    ),
    "GPT-2": (
        lambda: keras_hub.models.GPT2Backbone(num_heads=2, max_sequence_length=6, **TEXT),
        TOKENS,
        "transformer_layer_{}/self_attention",
        2,
        None,
    ),
    "Llama": (
        lambda: keras_hub.models.LlamaBackbone(
            num_query_heads=4, num_key_value_heads=2, **TEXT
        ),
        TOKENS,
        "transformer_layer_{}/self_attention",
        4,
        None,
    ),
    "Gemma": (
        lambda: keras_hub.models.GemmaBackbone(
            num_query_heads=4, num_key_value_heads=2, head_dim=8, **TEXT
        ),
        TOKENS,
        "decoder_block_{}/attention",
        4,
        None,
    ),
    "T5": (
        lambda: keras_hub.models.T5Backbone(num_heads=2, **TEXT),
        {
            f"{part}_{name}": value
            for part in ("encoder", "decoder")
            for name, value in TOKENS.items()
        },
        "transformer_encoder_layer_{}/self_attention",
        2,
        None,
    ),
    "CLIP": (make_clip, {"images": IMAGES, "token_ids": IDS}, "", 2, TokenGrid(4, 4, 1)),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[Any, Any, str, int, TokenGrid | None]:
    make, x, path, heads, grid = MODELS[request.param]
    with warnings.catch_warnings():  # of layers that do not support masks
        warnings.simplefilter("ignore")
        return make(), x, path, heads, grid


def test_attention_of_every_layer(case: tuple[Any, Any, str, int, TokenGrid | None]) -> None:
    model, x, path, heads, grid = case
    infos = actgrid.figures.list_attention(actgrid.list_layers(model))
    scores = actgrid.Extractor(model, [info.path for info in infos])(x)
    assert len(scores) >= 2
    for values in scores.values():
        assert values.ndim == 4
        np.testing.assert_allclose(values.sum(-1), 1, rtol=1e-3)
    if path:
        expected = [f"{path.format(number)}/attention" for number in range(3)]
        found = [name for name in expected if name in scores]
        assert len(found) == 2
        assert scores[found[0]].shape[1] == heads
    found_grids = {info.token_grid for info in infos} - {None}
    assert found_grids == ({grid} if grid is not None else set())


def test_no_layer_of_tokens_is_an_image(
    case: tuple[Any, Any, str, int, TokenGrid | None],
) -> None:
    model, x, *_ = case
    extractor = actgrid.Extractor(model, "*")
    extractor(x)
    for listed in (actgrid.list_layers(model), list(extractor.layers.values())):
        for info in listed:
            if len(info.shape) == 4 and 0 not in info.shape and info.kind == "image":
                # Of the layers (N, H, W, C), only those of convolutions and of merged windows.
                assert info.type.startswith(("Conv", "LayerNorm", "Dense")), info
                assert info.shape[1] == info.shape[2], info


def test_listing_equals_a_run(case: tuple[Any, Any, str, int, TokenGrid | None]) -> None:
    model, x, *_ = case
    extractor = actgrid.Extractor(model, "*")
    extractor(tf.nest.map_structure(lambda array: array[:1], x))
    for info in actgrid.list_layers(model):
        run = extractor.layers[info.path]
        assert (run.axes, run.grids) == (info.axes, info.grids), info.path


def test_layers_are_drawn(case: tuple[Any, Any, str, int, TokenGrid | None]) -> None:
    model, x, *_ = case
    grids = actgrid.render_model(model, x)
    assert len(grids) > 10
    infos = actgrid.figures.list_attention(actgrid.list_layers(model))
    for info in infos:
        assert "a tile for each head" in grids[info.path].note
        assert len(grids[info.path].channels) == info.channels


def test_scores_of_gpt2_by_hand() -> None:
    make, x, path, _, _ = MODELS["GPT-2"]
    model = make()
    layer = model.get_layer("transformer_layer_0")
    normal, attention = layer._self_attention_layer_norm, layer._self_attention_layer
    activations = actgrid.Extractor(
        model, ["embeddings_dropout", f"{path.format(0)}/attention"]
    )(x)  # fmt: skip
    y = normal(activations["embeddings_dropout"])
    query, key = attention.query_dense(y), attention.key_dense(y)
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(8)
    causal = np.tril(np.ones((6, 6), bool)) & (IDS > 0)[:, None, None]
    logits = np.where(causal, logits, -1e9)
    expected = np.exp(logits - logits.max(-1, keepdims=True)) * causal
    expected /= expected.sum(-1, keepdims=True)
    scores = activations[f"{path.format(0)}/attention"]
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)


def test_language_model_is_explained_and_read() -> None:
    backbone = keras_hub.models.GPT2Backbone(num_heads=2, max_sequence_length=6, **TEXT)
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    logits = model.predict(TOKENS, verbose=0)
    for method in ("attention_rollout", "attention_relevance", "attnlrp"):
        text = actgrid.explain(model, TOKENS, method, {"token": 7})
        np.testing.assert_allclose(
            np.asarray(text.score), [logits[0, 4, 7], logits[1, 2, 7]], rtol=1e-4
        )
        assert not text.values[1, 3:].any()
    lens = actgrid.compute_logit_lens(model, TOKENS)
    np.testing.assert_array_equal(lens.indices[-1, :, 0], logits[0].argmax(-1))
    tied = actgrid.compute_logit_lens(
        model, TOKENS, output_head=[backbone.get_layer("layer_norm"), backbone.token_embedding]
    )
    np.testing.assert_array_equal(tied.indices, lens.indices)
