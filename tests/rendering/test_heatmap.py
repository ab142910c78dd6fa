"""Tests of `actgrid.Heatmap`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import actgrid
from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.rendering import Sheet, palette

MAPS = np.random.default_rng(0).random((3, 4, 5), np.float32)
PHOTOS = np.random.default_rng(1).integers(0, 256, (3, 24, 30, 3), np.uint8)

Array = npt.NDArray[Any]


def get_only_picture(sheet: Sheet) -> Array:
    """Return the only picture of a sheet."""
    picture: Array
    (picture,) = sheet.pictures
    return picture


# --- construction and indexing ---


def test_maps_are_float32_and_images_are_rgb() -> None:
    heatmap = actgrid.Heatmap(MAPS[0].astype(np.float64), images=PHOTOS[0])
    assert heatmap.values.dtype == np.float32
    np.testing.assert_array_equal(heatmap.values, MAPS[:1])
    assert heatmap.images is not None
    np.testing.assert_array_equal(heatmap.images, PHOTOS[:1])
    optional_attributes = (
        heatmap.target,
        heatmap.labels,
        heatmap.score,
        heatmap.method,
        heatmap.layer,
    )
    assert optional_attributes == (None,) * 5
    assert (heatmap.signed, heatmap.is_logit, heatmap.details) == (False, False, {})


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", ">f8"])
def test_maps_of_any_real_dtype(dtype: str) -> None:
    values = np.arange(12).reshape(3, 4) % 2
    np.testing.assert_array_equal(actgrid.Heatmap(values.astype(dtype)).values[0], values)


@pytest.mark.parametrize(
    "images",
    [
        np.repeat(PHOTOS[..., :1], 3, axis=3),
        PHOTOS[..., :1],
        list(PHOTOS[..., 0]),
        [Image.fromarray(photo) for photo in PHOTOS[..., 0]],
        tuple(np.repeat(PHOTOS[..., :1], 3, axis=3)),
    ],
)
def test_image_formats(images: Any) -> None:
    converted = actgrid.Heatmap(MAPS, images=images).images
    assert converted is not None
    np.testing.assert_array_equal(converted, np.repeat(PHOTOS[..., :1], 3, axis=3))


@pytest.mark.parametrize("image", [PHOTOS[0], Image.fromarray(PHOTOS[0]), [PHOTOS[0]]])
def test_single_image_is_used_for_all_maps(image: Any) -> None:
    converted = actgrid.Heatmap(MAPS, images=image).images
    np.testing.assert_array_equal(converted, np.stack([PHOTOS[0]] * 3))


def test_exif_orientation_is_applied() -> None:
    photo = Image.fromarray(PHOTOS[0])
    photo.getexif()[0x0112] = 6  # a quarter turn clockwise
    converted = actgrid.Heatmap(MAPS[0], images=photo).images
    np.testing.assert_array_equal(converted, np.rot90(PHOTOS[0], -1)[None])


def test_signed_defaults_to_negative_values() -> None:
    assert actgrid.Heatmap(MAPS - 0.5).signed is True
    assert actgrid.Heatmap(MAPS - 0.5, signed=False).signed is False
    assert actgrid.Heatmap(MAPS, signed=True).signed is True


def test_attributes_are_read_only() -> None:
    heatmap = actgrid.Heatmap(MAPS)
    with pytest.raises(AttributeError):
        heatmap.method = "cam"  # type: ignore[misc]


@pytest.fixture
def heatmap() -> actgrid.Heatmap:
    return actgrid.Heatmap(
        MAPS,
        images=PHOTOS,
        target=[7, 8, 9],
        labels=["cat", "dog", "axolotl"],
        score=[0.25, 0.5, 0.75],
        signed=True,
        method="lime",
        layer="block5",
        is_logit=True,
        details={"weights": np.eye(3), "names": ["a", "b", "c"], "steps": 50, "fit": np.ones(2)},
    )


def test_indexing_selects_entries_of_all_attributes(heatmap: actgrid.Heatmap) -> None:
    assert len(heatmap) == 3
    for last in (heatmap[-1], heatmap[2], heatmap[np.int64(2)], heatmap[2:], [*heatmap][2]):
        np.testing.assert_array_equal(last.values, MAPS[2:])
        np.testing.assert_array_equal(last.images, PHOTOS[2:])
        assert last.target is not None
        assert last.score is not None
        assert (last.target.tolist(), last.labels) == ([9], ("axolotl",))
        assert (last.score.tolist(), last.score.dtype) == ([0.75], np.float32)
        assert (last.signed, last.method, last.layer) == (True, "lime", "block5")
        assert last.is_logit
        assert last.details["weights"].tolist() == [[0, 0, 1]]
        assert last.details["names"] == ["c"]
        assert (last.details["steps"], last.details["fit"].tolist()) == (50, [1, 1])
    assert heatmap[::2].labels == ("cat", "axolotl")


def test_index_out_of_range_raises(heatmap: actgrid.Heatmap) -> None:
    with pytest.raises(IndexError):
        heatmap[3]
    with pytest.raises(OptionError, match="selects none of 3 maps"):
        heatmap[3:]


def test_repr_is_one_line(heatmap: actgrid.Heatmap) -> None:
    assert repr(heatmap) == "<Heatmap 3 maps of 5 x 4, lime, block5, cat, dog, axolotl>"
    assert repr(actgrid.Heatmap(MAPS[0])) == "<Heatmap 1 map of 5 x 4>"


def test_heatmap_can_be_pickled(heatmap: actgrid.Heatmap) -> None:
    restored = pickle.loads(pickle.dumps(heatmap))
    np.testing.assert_array_equal(restored.to_rgb(), heatmap.to_rgb())
    assert repr(restored) == repr(heatmap)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"values": np.zeros(4)}, ShapeError, r"\(N, height, width\).*not \(4,\)"),
        ({"values": np.zeros((2, 0, 3))}, ShapeError, "not empty"),
        ({"values": MAPS.astype(complex)}, DtypeError, "complex64|complex128"),
        ({"images": PHOTOS / 255}, DtypeError, "uint8 pixels, 0 to 255, not float64"),
        ({"images": PHOTOS[:2]}, ShapeError, "2 images were given for 3 maps"),
        ({"images": PHOTOS[..., :2]}, ShapeError, r"not \(3, 24, 30, 2\)"),
        ({"images": [PHOTOS[0], PHOTOS[1][1:], PHOTOS[2]]}, ShapeError, "of one size"),
        ({"images": []}, ShapeError, "one or more images"),
        ({"target": [1, 2]}, ShapeError, r"target must be \(3,\), one for each map, not \(2,\)"),
        ({"target": ["cat"] * 3}, DtypeError, "target must be class indices"),
        ({"target": [0.5] * 3}, DtypeError, "target must be class indices"),
        ({"score": 0.5}, ShapeError, r"score must be \(3,\)"),
        ({"score": ["much"] * 3}, DtypeError, "score must be numbers"),
        ({"labels": "cat"}, OptionError, "labels must be 3 names"),
        ({"labels": [1, 2, 3]}, OptionError, "labels must be 3 names"),
    ],
)
def test_invalid_arguments_raise(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        actgrid.Heatmap(**{"values": MAPS, **options})


# --- drawing ---


def test_resize_is_bilinear() -> None:
    resized = actgrid.Heatmap([[0, 4], [8, 12]]).resize(4, 4)
    assert resized.dtype == np.float32
    assert resized[0].tolist() == [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    with pytest.raises(OptionError, match="height must be at least 1"):
        actgrid.Heatmap(MAPS).resize(0, 4)


def test_overlay_blends_photo_and_colours() -> None:
    # Without resizing, 0, 1/2 and 1 are levels 0, 128 and 255.
    photo = np.full((1, 4, 3), 100, np.uint8)
    heatmap = actgrid.Heatmap([[0, 1, 2, np.nan]], images=photo)
    colours = palette("viridis")[[0, 128, 255, 0]].astype(float)
    expected = np.floor((100 + colours) / 2 + 0.5)
    np.testing.assert_array_equal(get_only_picture(heatmap.overlay(clip=100))[0], expected)
    np.testing.assert_array_equal(get_only_picture(heatmap.overlay(alpha=0)), photo)
    opaque_picture = get_only_picture(heatmap.overlay(alpha=1, cmap="magma", clip=100))[0]
    np.testing.assert_array_equal(opaque_picture, palette("magma")[[0, 128, 255, 0]])


def test_zero_of_signed_maps_is_the_middle_colour() -> None:
    photo = np.zeros((1, 3, 3), np.uint8)
    heatmap = actgrid.Heatmap([[-4, 0, 2]], images=photo)
    expected = palette("RdBu_r")[[0, 128, 191]]  # 128 + 127.5 * (-1, 0, 1/2)
    np.testing.assert_array_equal(get_only_picture(heatmap.overlay(alpha=1, clip=100))[0], expected)


def compute_levels(values: Array, **options: Any) -> Array:
    """Return the levels that single-row maps are drawn with."""
    photo = np.zeros((*np.shape(values), 3), np.uint8)
    heatmap = actgrid.Heatmap(values, images=photo)
    return get_only_picture(heatmap.overlay(alpha=1, cmap="gray", **options))[..., 0]


def test_clip_ignores_outliers() -> None:
    values = np.append(np.arange(200.0), 1e6)[None]
    assert compute_levels(values, clip=100)[0, :200].max() == 0
    # The 99th percentile of 201 values is entry 198.
    expected = np.trunc(np.arange(200.0) * (255 / 198) + 0.5).clip(0, 255)
    np.testing.assert_array_equal(compute_levels(values)[0, :200], expected)
    # For signed maps it is the percentile of absolute values.
    signed = compute_levels(np.concatenate([-values, values], 1))[0]
    assert signed[[0, 198, 200, 399, 401]].tolist() == [128, 0, 0, 255, 255]


@pytest.mark.parametrize("sign", [1, -1])
def test_sparse_map_uses_its_largest_value(sign: int) -> None:
    values = np.zeros((1, 1000))
    values[0, :2] = sign * 2, sign
    expected = [255, 128] if sign > 0 else [0, 64]
    assert compute_levels(values)[0, :2].tolist() == expected


@pytest.mark.parametrize(("value", "level"), [(0, 0), (5, 0), (np.nan, 0), (-5, 0)])
def test_constant_maps_have_one_level(value: float, level: int) -> None:
    assert np.unique(compute_levels(np.full((2, 3), value))).tolist() == [level]


def test_maps_have_separate_ranges() -> None:
    maps = np.stack([MAPS[0], MAPS[0] * 1000 + 5])
    first, second = actgrid.Heatmap(maps, images=PHOTOS[0]).overlay(clip=100).pictures
    assert np.abs(first.astype(int) - second).max() <= 1


def test_overlay_does_not_depend_on_threads() -> None:
    photos = np.random.default_rng(2).integers(0, 256, (2, 500, 400, 3), np.uint8)
    heatmap = actgrid.Heatmap(MAPS[:2], images=photos)
    single_threaded = heatmap.overlay(threads=1)
    assert single_threaded.pictures.shape == photos.shape
    np.testing.assert_array_equal(heatmap.overlay(threads=3).pictures, single_threaded.pictures)
    np.testing.assert_array_equal(
        get_only_picture(heatmap[1].overlay()), single_threaded.pictures[1]
    )
    assert heatmap.overlay(columns=1).to_rgb().shape == (1004, 400, 3)


def make_disc_map(size: int = 101) -> Array:
    """Return a map that is 1 in the centre and falls linearly with the distance."""
    center = size // 2
    y, x = np.mgrid[:size, :size] - center
    values: Array = 1 - np.hypot(y, x) / center
    return values


def test_contours_follow_the_levels() -> None:
    values = make_disc_map().clip(0)
    photo = np.full((101, 101, 3), 10, np.uint8)
    heatmap = actgrid.Heatmap(values, images=photo)
    drawn = get_only_picture(heatmap.contours((0.5,), (200, 0, 0), clip=100))
    line = (drawn == (200, 0, 0)).all(-1)
    assert (drawn[~line] == 10).all()
    # A ring of radius 25 and width 1 pixel.
    assert np.abs(values[line] - 0.5).max() < 1.5 / 50
    assert 2 * np.pi * 25 * 0.8 < line.sum() < 2 * np.pi * 25 * 1.5
    assert line[50, 24] or line[50, 25]
    three_contours = get_only_picture(heatmap.contours(color="red", clip=100))
    assert 2.5 < (three_contours == (255, 0, 0)).all(-1).sum() / line.sum() < 3.5


def test_contours_of_signed_maps_have_two_colours() -> None:
    values = np.concatenate([make_disc_map().clip(0), -2 * make_disc_map().clip(0)], 1)
    photo = np.zeros((*values.shape, 3), np.uint8)
    heatmap = actgrid.Heatmap(values, images=photo)
    drawn = get_only_picture(heatmap.contours([0.25], "red", "blue", clip=100))
    red, blue = ((drawn == colour).all(-1) for colour in ((255, 0, 0), (0, 0, 255)))
    assert red.any()
    assert blue.any()
    # A quarter of the largest absolute value, 2.
    np.testing.assert_allclose(values[red], 0.5, atol=0.03)
    np.testing.assert_allclose(values[blue], -0.5, atol=0.06)


@pytest.mark.parametrize(("side", "width", "drawn"), [(90, None, 1), (1000, None, 5), (90, 4, 4)])
def test_contour_width(side: int, width: int | None, drawn: int) -> None:
    photo = np.zeros((side, side, 3), np.uint8)
    heatmap = actgrid.Heatmap([[0, 1]], images=photo)
    line = get_only_picture(heatmap.contours(0.5, "white", width=width, clip=100))[..., 0] == 255
    assert line.sum(1).tolist() == [drawn] * side
    assert abs(np.flatnonzero(line[0]).mean() - side / 2) <= 1


def test_constant_maps_have_no_contours() -> None:
    for values in (np.zeros((4, 5)), np.full((4, 5), 3.0), np.full((4, 5), np.nan)):
        heatmap = actgrid.Heatmap(values, images=PHOTOS[0])
        np.testing.assert_array_equal(get_only_picture(heatmap.contours()), PHOTOS[0])


def test_to_grid_draws_maps_as_tiles() -> None:
    grid = actgrid.Heatmap(MAPS).to_grid(columns=3, padding=0)
    expected = actgrid.render(np.moveaxis(MAPS, 0, -1), normalize="minmax", columns=3, padding=0)
    np.testing.assert_array_equal(grid.levels, expected.levels)
    assert grid.cmap == "viridis"
    signed = actgrid.Heatmap(np.array([[-4, 0, 2]])).to_grid()
    assert (signed.cmap, signed.levels.tolist()) == ("RdBu_r", [[0, 128, 191]])
    assert actgrid.Heatmap(MAPS).to_grid(cmap="gray").cmap == "gray"


def test_picture_is_overlay_or_bare_maps(heatmap: actgrid.Heatmap, tmp_path: Path) -> None:
    np.testing.assert_array_equal(heatmap.to_rgb(), heatmap.overlay().to_rgb())
    imageless = actgrid.Heatmap(MAPS)
    np.testing.assert_array_equal(imageless.to_rgb(), imageless.to_grid().to_rgb())
    heatmap.save(tmp_path / "heatmap.png")
    with Image.open(tmp_path / "heatmap.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), heatmap.to_rgb())
    assert heatmap._repr_png_()[0].startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", [actgrid.Heatmap.overlay, actgrid.Heatmap.contours])
def test_drawing_over_images_needs_images(draw: Any) -> None:
    with pytest.raises(OptionError, match=r"give them as Heatmap\(values, images=...\)"):
        draw(actgrid.Heatmap(MAPS))


@pytest.mark.parametrize(
    ("draw", "options", "message"),
    [
        ("overlay", {"alpha": 1.5}, "alpha must be a number from 0 to 1, not 1.5"),
        ("overlay", {"alpha": "half"}, "alpha must be a number from 0 to 1, not 'half'"),
        ("overlay", {"clip": 101}, "clip must be a number from 0 to 100, not 101"),
        ("overlay", {"cmap": "viridid"}, r"no colormap is called 'viridid' \(did you mean"),
        ("overlay", {"threads": 0}, "threads must be at least 1"),
        ("overlay", {"columns": 0}, "columns must be at least 1"),
        ("contours", {"levels": [0.5, 2]}, "levels must be a number from 0 to 1, not 2"),
        ("contours", {"color": "redd"}, "color must be the name of a colour, .*not 'redd'"),
        ("contours", {"color": (0, 0, 256)}, "color must be"),
        ("contours", {"width": 0}, "width must be at least 1"),
    ],
)
def test_invalid_options_raise(
    heatmap: actgrid.Heatmap, draw: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        getattr(heatmap, draw)(**options)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_levels_match_overlay_colours(shift: float) -> None:
    heatmap = actgrid.Heatmap(MAPS - np.float32(shift), images=PHOTOS)
    levels = heatmap.levels(clip=90)
    assert levels.dtype == np.uint8
    assert levels.shape == PHOTOS.shape[:3]
    assert heatmap.cmap == ("RdBu_r" if shift else "viridis")
    colours = palette(heatmap.cmap)
    overlaid = heatmap.overlay(alpha=1, clip=90).pictures
    np.testing.assert_array_equal(colours[levels], overlaid)


def test_levels_need_images() -> None:
    with pytest.raises(OptionError, match="no images"):
        actgrid.Heatmap(MAPS).levels()


# --- maps of a region of an image


def draw_boxed_map(box: tuple[int, int, int, int], alpha: float = 1.0, size: int = 8) -> Array:
    photo = np.full((size, size, 3), 200, np.uint8)
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    heatmap = actgrid.Heatmap(values, images=photo, boxes=box)
    return get_only_picture(heatmap.overlay(alpha=alpha, cmap="gray", clip=100))


def draw_unboxed_map(height: int, width: int) -> Array:
    photo = np.full((height, width, 3), 200, np.uint8)
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    return get_only_picture(
        actgrid.Heatmap(values, images=photo).overlay(alpha=1.0, cmap="gray", clip=100)
    )


def test_box_is_covered_and_rest_is_darkened() -> None:
    drawn = draw_boxed_map((1, 2, 5, 8))
    np.testing.assert_array_equal(drawn[1:5, 2:8], draw_unboxed_map(4, 6))
    is_outside = np.ones((8, 8), bool)
    is_outside[1:5, 2:8] = False
    assert not drawn[is_outside].any()
    half_blended = draw_boxed_map((1, 2, 5, 8), alpha=0.5)
    np.testing.assert_array_equal(half_blended[is_outside], np.full((40, 3), 100))
    np.testing.assert_array_equal(draw_boxed_map((1, 2, 5, 8), alpha=0), np.full((8, 8, 3), 200))


def test_box_may_extend_beyond_image() -> None:
    drawn = draw_boxed_map((-4, 0, 12, 8))
    np.testing.assert_array_equal(drawn, draw_unboxed_map(16, 8)[4:12])


def test_box_of_whole_image_equals_no_box() -> None:
    np.testing.assert_array_equal(draw_boxed_map((0, 0, 8, 8)), draw_unboxed_map(8, 8))


def test_contours_stay_in_box() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    heatmap = actgrid.Heatmap(make_disc_map(20), images=photo, boxes=(5, 30, 25, 50))
    drawn = get_only_picture(heatmap.contours([0.5], color="#ffffff"))
    boxless = actgrid.Heatmap(make_disc_map(20), images=np.zeros((20, 20, 3), np.uint8))
    np.testing.assert_array_equal(
        drawn[5:25, 30:50], get_only_picture(boxless.contours([0.5], color="#ffffff"))
    )
    assert drawn[5:25, 30:50].any()
    drawn[5:25, 30:50] = 0
    assert not drawn.any()


def test_replace_images(heatmap: actgrid.Heatmap) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    replaced = heatmap.replace_images(photo, (0, 0, 9, 6))
    assert replaced.images is not None
    assert replaced.boxes is not None
    np.testing.assert_array_equal(replaced.values, heatmap.values)
    np.testing.assert_array_equal(replaced.images, np.stack([photo] * len(heatmap)))
    np.testing.assert_array_equal(replaced.boxes, [[0, 0, 9, 6]] * len(heatmap))
    assert (replaced.labels, replaced.method, replaced.layer) == (
        heatmap.labels,
        heatmap.method,
        heatmap.layer,
    )
    assert replaced[1].boxes is not None
    np.testing.assert_array_equal(replaced[1].boxes, [[0, 0, 9, 6]])


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        ([0, 0, 4], ShapeError, r"boxes must be \(4,\) or \(2, 4\)"),
        ([0.0, 0.0, 4.0, 4.0], DtypeError, "boxes must be integers"),
        ([4, 0, 4, 4], OptionError, "boxes must be top, left, bottom and right"),
    ],
)
def test_invalid_boxes_raise(boxes: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        actgrid.Heatmap(np.zeros((2, 3, 3)), images=PHOTOS[0], boxes=boxes)
