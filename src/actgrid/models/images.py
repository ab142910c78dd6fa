"""Image files, arrays and pictures to the batch that a model wants."""

from __future__ import annotations

import glob
import operator
import os
import struct
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from actgrid.errors import (
    ActgridError,
    ImageError,
    MissingFileError,
    OptionError,
    ShapeError,
    TooLargeError,
)
from actgrid.models.data_formats import input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import input_structure, names_of
from actgrid.models.preprocessing import preprocessing
from actgrid.models.tracing import known_specs, trace_model, unchanged

__all__ = [
    "DEMO",
    "FITS",
    "ImageInput",
    "Photo",
    "are_images",
    "check_fit",
    "find_images",
    "fixed_sides",
    "image_input",
    "image_size",
    "images_in_folder",
    "is_folder",
    "load_images",
    "load_photos",
    "load_with_pixels",
    "open_images",
    "reading_image",
]

Pixels = npt.NDArray[np.float32]

DEMO = "demo"  # the word for the embedded photo
# How an image of another shape is brought to the model's.
FITS = ("crop", "pad", "stretch")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Formats that Pillow knows by name but leaves to others to read.
_UNREADABLE = frozenset(["BUFR", "GRIB", "HDF5", "MPEG", "WMF"])
# What Pillow raises, besides its own, on files that are no more what they were.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError, struct.error)
# An input of the model as float32 RGB takes 12 bytes a pixel.
_MAX_PIXELS = 1 << 27
_RESAMPLING = Image.Resampling.BICUBIC


def load_images(
    sources: object,
    size: int | tuple[int, int] | None = None,
    preprocess: str | Callable[[Pixels], Any] = "auto",
    *,
    model: Any = None,
    fit: str = "crop",
) -> npt.NDArray[Any]:
    """Return images as one batch, ready for a model.

    Parameters
    ----------
    sources
        An image file, a folder (its image files, recursively, without hidden ones), a glob,
        ``"demo"`` (the embedded photo; ``"./demo"`` is a path), a Pillow image, an array of pixels
        0 to 255, (H, W) or (H, W, C), or a list of any of these. EXIF orientation is honoured;
        grayscale, palette, RGBA and 16-bit images are converted.
    size
        (height, width) in pixels, or one number for both; None: the model's input, or where that
        is not fixed, the images' own.
    preprocess
        What is done to pixels 0 to 255: ``"auto"``, see Notes; ``"none"``; ``"unit"`` (x / 255);
        a name in `keras.applications` (``"VGG16"``); or a function of the batch, (N, H, W, C)
        float32.
    model
        The Keras model they are for: decides size, channels, data format, and ``"auto"``. None
        stands for one that takes (N, H, W, 3).
    fit
        ``"crop"``: the largest middle part of the right shape; ``"pad"``: the whole image on
        black; ``"stretch"``: the whole image, distorted.

    Returns
    -------
    numpy.ndarray
        (N, H, W, C) float32, or (N, C, H, W) for a channels-first model.

    Raises
    ------
    MissingFileError
        If a file does not exist or a glob or folder holds no image. Also a FileNotFoundError.
    ImageError
        If a file is not an image, is truncated, or is a decompression bomb. Also an OSError.
    OptionError, ShapeError
        If an option cannot be used, or images without a fixed size differ in theirs. Both are
        ValueErrors.

    Warns
    -----
    AssumptionWarning
        Once for a model, if ``"auto"`` has to assume x / 255.

    Notes
    -----
    ``"auto"`` decides by the layers of the model, never by its name:

    1. A model that scales its input before its first kernel (by a Rescaling or Normalization
       layer, by arithmetic, or inside a layer of its own) gets pixels 0 to 255.
    2. A model whose first kernels are those of a network in `keras.applications` gets what that
       network wants: its ``preprocess_input``, or, if it was made with
       ``include_preprocessing=False``, what it would otherwise do itself.
    3. Any other model gets x / 255, which is assumed: a warning says so.

    Examples
    --------
    >>> batch = actgrid.load_images(["cat.jpg", "dog.png"], 224)
    >>> batch.shape
    (2, 224, 224, 3)
    """
    pixels, prepare = _loaded(sources, size, preprocess, model, fit)
    return prepare(pixels)


def load_with_pixels(
    sources: object,
    size: int | tuple[int, int] | None = None,
    preprocess: str | Callable[[Pixels], Any] = "auto",
    *,
    model: Any = None,
    fit: str = "crop",
) -> tuple[Pixels, npt.NDArray[Any]]:
    """Return images as pixels 0 to 255, (N, H, W, C), and as `load_images` prepares them."""
    pixels, prepare = _loaded(sources, size, preprocess, model, fit)
    return pixels, prepare(pixels.copy())


class Photo(NamedTuple):
    """An image as it is, and the part of it that a model is given.

    Attributes
    ----------
    pixels
        (H, W, 3) uint8 RGB, in the image's own size.
    box
        Top, left, bottom and right of that part in pixels. It reaches beyond the image where the
        image is padded.
    """

    pixels: npt.NDArray[np.uint8]
    box: tuple[int, int, int, int]


def open_images(sources: object) -> list[Any]:
    """Return image sources one by one, files as Pillow images that are read."""

    def opened(source: Any) -> Any:
        if not isinstance(source, (str, os.PathLike)):
            return source
        with reading_image(source), Image.open(source) as image:
            image.load()
            return image

    return [opened(source) for source in _expand(sources)]


def load_photos(
    sources: object,
    size: int | tuple[int, int] | None = None,
    *,
    model: Any = None,
    fit: str = "crop",
) -> list[Photo]:
    """Return images in their own sizes, each with the part that `load_images` takes of it.

    Parameters
    ----------
    sources, size, model, fit
        As for `load_images`; without a model and a size it takes all of an image.
    """
    check_fit(fit)
    image_input(model)
    target_of = _targets(size, model)
    photos = []
    for source in _expand(sources):
        pixels = np.rint(_fit(_planes(source, 3), None, fit)).astype(np.uint8)
        height, width, _ = pixels.shape
        photos.append(Photo(pixels, _box(height, width, target_of(height, width), fit)))
    return photos


def _targets(size: Any, model: Any) -> Callable[[int, int], tuple[int, int] | None]:
    """Return what gives the size that an image of a height and width is brought to.

    Of a model that fixes one side alone, the other one keeps the shape of the image.
    """
    if size is not None:
        given = image_size(size)
        return lambda height, width: given
    known = None if model is None else known_specs(model)
    down, across = (None, None) if known is None else fixed_sides(model)

    def target(height: int, width: int) -> tuple[int, int] | None:
        if down is None and across is None:
            return None
        return (
            down or max(1, round(height * (across or 0) / width)),
            across or max(1, round(width * (down or 0) / height)),
        )

    return target


def _box(
    height: int, width: int, target: tuple[int, int] | None, fit: str
) -> tuple[int, int, int, int]:
    """Return the part of an image that is brought to a size, as top, left, bottom and right."""
    if target is None or fit == "stretch":
        return 0, 0, height, width
    ratio = target[1] / target[0]
    if fit == "crop":
        left, top, right, bottom = _middle_box(width, height, ratio)
        return top, left, bottom, right
    across, down = max(width, round(height * ratio)), max(height, round(width / ratio))
    left, top = (width - across) // 2, (height - down) // 2
    return top, left, top + down, left + across


def _loaded(
    sources: object, size: Any, preprocess: str | Callable[[Pixels], Any], model: Any, fit: str
) -> tuple[Pixels, Callable[[Pixels], npt.NDArray[Any]]]:
    """Return images as pixels, and what makes the model's batch of them, perhaps in place."""
    check_fit(fit)
    channels, channels_first, _ = image_input(model)
    target_of = _targets(size, model)
    prepare = preprocessing(preprocess, model)
    # One by one: there is never more than one image in its own size.
    opened = (_planes(source, channels) for source in _expand(sources))
    images = [_fit(planes, target_of(planes[0].height, planes[0].width), fit) for planes in opened]
    if not images:
        raise OptionError("no images were given")
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        raise ShapeError(
            f"images of different sizes ({', '.join(f'{h} x {w}' for h, w in sorted(shapes))}) "
            "make no batch: give a size"
        )

    def prepared(pixels: Pixels) -> npt.NDArray[Any]:
        batch = np.asarray(prepare(pixels))
        return np.moveaxis(batch, -1, 1) if channels_first else batch

    return np.stack(images), prepared


def check_fit(fit: str) -> None:
    """Raise OptionError unless there is such a way to fit images."""
    if fit not in FITS:
        raise OptionError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")


def are_images(x: Any) -> bool:
    """Tell whether an input is image files or Pillow images, to be loaded by `load_images`."""
    if isinstance(x, (list, tuple)):
        return bool(x) and all(are_images(one) for one in x)
    return isinstance(x, (str, os.PathLike, Image.Image))


def find_images(source: str | os.PathLike[str]) -> list[Path]:
    """Return the image files that a path, a folder or a glob stands for, sorted.

    The word ``"demo"`` stands for the embedded photo, also where there is a file or folder of this
    name: that is ``"./demo"``.

    Raises
    ------
    MissingFileError
        If there are none.
    """
    if source == "":
        raise MissingFileError("the path of an image is empty")
    if source == DEMO:
        return [Path(str(files("actgrid") / "demo" / "cat.jpg"))]
    path = Path(source)
    if is_folder(source):
        return [path / name for name in images_in_folder(path)]
    if path.exists():
        return [path]
    names = glob.glob(os.fspath(source), recursive=True)
    found = sorted(Path(name) for name in names if not Path(name).is_dir())
    if not found:
        raise MissingFileError(f"there is no image {source}")
    return found


def is_folder(source: str | os.PathLike[str]) -> bool:
    """Return whether an image source is a folder; as a Path, "" would be the current folder."""
    return source not in ("", DEMO) and Path(source).is_dir()


def images_in_folder(folder: Path, without: str | None = None) -> Iterator[str]:
    """Yield the image files in a folder and below it, relative to it, sorted.

    Hidden files and folders, whose names begin with a dot, are skipped, as are folders that may
    not be read and the one at the relative path `without`. Links to folders are not followed; a
    link to a file that does not exist is yielded, so that the caller reports it.

    Raises
    ------
    MissingFileError
        If there are none.
    """
    suffixes = {
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _UNREADABLE
    }
    # Folder by folder: of a million files, only the names in one are held at a time.
    none = True
    for name in _walk(folder, "", without):
        if Path(name).suffix.lower() in suffixes:
            none = False
            yield name
    if none:
        raise MissingFileError(f"the folder {folder} holds no images")


def _walk(folder: str | os.PathLike[str], below: str, without: str | None) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if below + entry.name != without:
                yield from _walk(entry, f"{below}{entry.name}{os.sep}", without)
        elif entry.is_file(follow_symlinks=False) or _links_to_file(entry):
            yield below + entry.name


def _links_to_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to a file, or to nothing, which is an error to report."""
    # Not Path's methods, which raise where the target may not be looked at.
    return entry.is_symlink() and (os.path.isfile(entry) or not os.path.exists(entry))  # noqa: PTH110, PTH113


def _expand(sources: object) -> list[Any]:
    """Return single sources: paths of files, Pillow images and arrays."""
    if isinstance(sources, (str, os.PathLike)):
        return list(find_images(sources))
    if isinstance(sources, Image.Image):
        return [sources]
    if hasattr(sources, "__array__"):  # of NumPy, TensorFlow or another
        array = np.asarray(sources)
        return list(array) if array.ndim == 4 else [array]
    if isinstance(sources, Iterable):
        return [one for source in sources for one in _expand(source)]
    raise OptionError(f"images are files, folders, globs, arrays or pictures, not {sources!r}")


def _planes(source: Any, channels: int) -> list[Image.Image]:
    """Return an image as Pillow images of 8-bit or float levels 0 to 255, to be stacked."""
    if isinstance(source, np.ndarray):
        return _array_planes(source, channels)
    if isinstance(source, Image.Image):
        return _picture_planes(source, channels)
    with reading_image(source), Image.open(source) as image:
        return _picture_planes(image, channels)


@contextmanager
def reading_image(name: object) -> Iterator[None]:
    """Raise ImageError where Pillow fails on an image that is called so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except ActgridError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(
            f"{name} is too large to be safe: more than {Image.MAX_IMAGE_PIXELS} pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that Pillow can read") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            # Its text would tell where the file is, which its name need not.
            raise ImageError(f"{name} cannot be read: {error.strerror}") from error
        raise ImageError(f"{name} is truncated or broken: {error}") from error


def _picture_planes(image: Image.Image, channels: int) -> list[Image.Image]:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grayscale, which a plain conversion would clip. Mode I may hold 8 bits as well.
        values = np.asarray(image).astype(np.float32)
        wide = image.mode != "I" or values.max() > 255
        return _array_planes(values / 257 if wide else values, channels)
    if image.mode == "F":
        return _array_planes(np.asarray(image), channels)
    if image.mode in ("La", "RGBa"):  # multiplied by alpha, which converts to no other mode
        image = image.convert(image.mode.upper())
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return [image.convert(_MODES[channels])]


def _array_planes(array: npt.NDArray[Any], channels: int) -> list[Image.Image]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in _MODES or 0 in array.shape:
        raise ShapeError(
            f"an image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}"
        )
    if array.dtype == np.uint8:
        picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        return [picture.convert(_MODES[channels])]
    if array.dtype.kind not in "fiub":
        raise OptionError(f"an image must be of pixels 0 to 255, not of dtype {array.dtype}")
    planes = array.astype(np.float32)
    if channels == 1 and planes.shape[2] >= 3:
        # ITU-R 601 luma, as Pillow converts 8-bit colour.
        planes = planes[..., :3] @ np.array([[0.299], [0.587], [0.114]], np.float32)
    elif planes.shape[2] == 1:
        planes = np.repeat(planes, min(channels, 3), axis=2)
    if channels == 4 and planes.shape[2] == 3:
        planes = np.concatenate([planes, np.full_like(planes[..., :1], 255)], axis=2)
    return [Image.fromarray(np.ascontiguousarray(planes[..., c])) for c in range(channels)]


def _fit(planes: Sequence[Image.Image], size: tuple[int, int] | None, fit: str) -> Pixels:
    if size is not None:
        height, width = size
        if fit == "crop":
            planes = [_middle(plane, width / height) for plane in planes]
        if fit == "pad":
            planes = [ImageOps.pad(plane, (width, height), _RESAMPLING) for plane in planes]
        else:
            planes = [plane.resize((width, height), _RESAMPLING) for plane in planes]
    stacked = np.dstack([np.asarray(plane, np.float32) for plane in planes])
    return np.clip(stacked, 0, 255)


def _middle(image: Image.Image, ratio: float) -> Image.Image:
    """Return the largest middle part of an image with this ratio of width to height."""
    return image.crop(_middle_box(image.width, image.height, ratio))


def _middle_box(width: int, height: int, ratio: float) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the largest middle part with this ratio."""
    across = min(width, max(1, round(height * ratio)))
    down = min(height, max(1, round(width / ratio)))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def image_size(size: Any) -> tuple[int, int]:
    """Return (height, width) as an option gives it, one number standing for both.

    Raises
    ------
    OptionError
        If it is no size.
    """
    try:
        height, width = size if np.ndim(size) else (size, size)
        height, width = operator.index(height), operator.index(width)
    except (TypeError, ValueError):
        raise OptionError(f"size must be (height, width) or one number, not {size!r}") from None
    if height < 1 or width < 1:
        raise OptionError(f"size must be at least 1 x 1, not {height} x {width}")
    if height * width > _MAX_PIXELS:
        raise OptionError(
            f"size must be at most {_MAX_PIXELS:,} pixels in all, not {height} x {width}"
        )
    return height, width


class ImageInput(NamedTuple):
    """What a model takes as its image.

    Attributes
    ----------
    channels
        Length of the channel axis.
    channels_first
        Whether a batch is (N, C, H, W).
    size
        (height, width) in pixels; None if the model does not fix both.
    """

    channels: int
    channels_first: bool
    size: tuple[int, int] | None


def image_input(model: Any) -> ImageInput:
    """Return what a model takes as its image.

    Raises
    ------
    ShapeError
        If it takes something else than one batch of images.
    """
    specs = None if model is None else known_specs(model)
    if specs is None:
        return ImageInput(3, False, None)
    shapes = [tuple(spec.shape) for spec in tensorflow().nest.flatten(specs)]
    shape = shapes[0]
    if len(shapes) > 1:
        names = ", ".join(map(repr, names_of(model, specs)))
        raise ShapeError(
            f"the model takes {len(shapes)} inputs ({names}), not one batch of images: image files "
            "cannot be all of them; give arrays, by the names of the inputs, in a dict or in a "
            "dataset of dicts with preprocess=None"
        )
    if len(shape) != 4:
        raise ShapeError(f"the model takes {shape}, not a batch of images")
    channels_first = input_data_format(model) == "channels_first"
    channels = shape[1 if channels_first else 3] or 3
    if channels not in _MODES:
        raise ShapeError(f"the model takes {shape}: no image has {channels} channels")
    height, width = fixed_sides(model)
    return ImageInput(channels, channels_first, (height, width) if height and width else None)


def fixed_sides(model: Any) -> tuple[int | None, int | None]:
    """Return the height and width of images that a model fixes, None where it fixes none.

    A model without symbolic inputs is traced once on images of the size that it was called with,
    and of twice that size: it fixes the size if it takes the former alone.
    """
    (spec,) = tensorflow().nest.flatten(known_specs(model))
    first = input_data_format(model) == "channels_first"
    height, width = spec.shape[2:4] if first else spec.shape[1:3]
    if input_structure(model) is None and not _fixes_size(model, spec, first):
        return None, None
    return height, width


# By model, the shape that was tried and whether the model fixes its size.
_TRIED: weakref.WeakKeyDictionary[Any, tuple[Any, bool]] = weakref.WeakKeyDictionary()


def _fixes_size(model: Any, spec: Any, channels_first: bool) -> bool:
    """Return whether a model can be traced on images of this size, and of no other."""
    shape = tuple(spec.shape)
    if (known := _TRIED.get(model)) is not None and known[0] == shape:
        return known[1]
    sides = slice(2, 4) if channels_first else slice(1, 3)
    twice: list[int | None] = list(shape)
    twice[sides] = [None if side is None else 2 * side for side in shape[sides]]
    fixes = not _can_trace(model, twice, spec.dtype) and _can_trace(model, shape, spec.dtype)
    _TRIED[model] = shape, fixes
    return fixes


def _can_trace(model: Any, shape: Sequence[int | None], dtype: Any) -> bool:
    def trace(inputs: Any) -> Any:
        with unchanged():
            return trace_model(model, inputs).outputs

    try:
        GraphFunction(trace).trace(tensorflow().TensorSpec(shape, dtype))
    except Exception:  # of the layers, which may raise anything
        return False
    return True
