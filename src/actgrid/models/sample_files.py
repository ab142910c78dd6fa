"""Read files of arrays, audio, tables, volumes, videos or texts for a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.errors import (
    ActgridError,
    FormatError,
    MissingFileError,
    OptionError,
    ShapeError,
)
from actgrid.models.array_files import read_npy, read_npz
from actgrid.models.file_checks import check_file, is_directory, read_text_file
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_pixels import MODES, parse_image_size
from actgrid.models.image_sources import find_images
from actgrid.models.inputs import join_batches, prepare_inputs
from actgrid.models.loading import load_model
from actgrid.models.preprocessing import get_preprocess_function
from actgrid.models.sample_inputs import (
    SampleInput,
    SampleKind,
    cast_values,
    find_sample_input,
    find_sample_kind,
    list_inputs,
)
from actgrid.models.table_files import read_table
from actgrid.models.texts import encode_texts
from actgrid.models.types import ModelLike
from actgrid.models.video_files import count_frames, is_frame_folder, read_video
from actgrid.models.vocabularies import Tokenizer
from actgrid.models.volume_files import read_nifti, read_tiff
from actgrid.models.wave_files import read_wave
from actgrid.option_groups import takes_options
from actgrid.options import InputOptions

__all__ = [
    "Samples",
    "find_sample_files",
    "is_sample_file",
    "load_samples",
    "may_be_sample_file",
    "read_samples",
]

Array = npt.NDArray[Any]

_ARRAY_SUFFIXES = (".npy", ".npz", ".wav", ".csv", ".tsv", ".nii", ".nii.gz")
_VOLUME_SUFFIXES = (".tif", ".tiff", ".gif", ".webp", ".apng")
# Suffixes of the files that a model takes, by the kind of its samples; None: not known.
_SUFFIXES: dict[SampleKind | None, tuple[str, ...]] = {
    None: _ARRAY_SUFFIXES,
    "image": (".npy", ".npz"),
    "sequence": (".npy", ".npz", ".wav", ".csv", ".tsv"),
    "table": (".npy", ".npz", ".wav", ".csv", ".tsv"),
    "text": (".npy", ".npz", ".csv", ".tsv", ".txt"),
    "volume": (".npy", ".npz", ".nii", ".nii.gz", *_VOLUME_SUFFIXES),
}
_ALL_SUFFIXES = tuple(sorted({suffix for group in _SUFFIXES.values() for suffix in group}))
_KIND_NAMES: dict[SampleKind | None, str] = {
    None: "arrays",
    "image": "images",
    "sequence": "sequences",
    "table": "rows of a table",
    "volume": "volumes or videos",
    "text": "texts",
}


class Samples(NamedTuple):
    """Record of the samples of a file, as a batch for a model.

    Attributes
    ----------
    batch
        Array (N, ...) in the shape of the model input; for a file of several inputs, a dict of
        arrays by input name.
    names
        Name of each sample: the name of the file, and the position of the sample in the file if it
        holds several, such as ``"flowers[2].csv"``. It says if frames of a video were left out.
    features
        Names of the channels (the columns of a table); None if the file has no names.
    texts
        The texts; None for other samples.
    """

    batch: Array | dict[str, Array]
    names: tuple[str, ...]
    features: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None


def may_be_sample_file(path: str | os.PathLike[str]) -> bool:
    """Return whether the suffix of a path is that of samples, for a model of any kind."""
    return os.fspath(path).lower().endswith(_ALL_SUFFIXES)


def is_sample_file(path: str | os.PathLike[str], kind: SampleKind | None = None) -> bool:
    """Return whether a path is a file of samples and not of a picture.

    Parameters
    ----------
    path : path or str
        Path of a file or folder. Only pictures and folders are opened.
    kind : str or None, default None
        Kind of samples that the model takes, as `find_sample_kind` returns it. Animations, TIFF
        files and folders of frames hold samples only for ``"volume"``, and .txt files only for
        ``"text"``; otherwise they are pictures, or folders and lists of pictures. None: any kind.

    Returns
    -------
    bool
        Whether the path is a file of samples of this kind.
    """
    path = Path(path)
    name = path.name.lower()
    if is_directory(path):
        return kind == "volume" and is_frame_folder(path)
    if kind == "volume" and name.endswith(".png"):
        return count_frames(path) > 1
    return name.endswith(_SUFFIXES[kind])


def find_sample_files(source: str | os.PathLike[str], kind: SampleKind | None) -> list[Path]:
    """Find the files of samples of a path, a folder or a glob.

    Parameters
    ----------
    source : path or str
        A file, a folder (searched recursively, without hidden files) or a glob.
    kind : str or None
        Kind of samples that the model takes, as `find_sample_kind` returns it.

    Returns
    -------
    list of pathlib.Path
        The files, sorted; a folder of frames as one path.

    Raises
    ------
    MissingFileError
        If there is no such file. Also a FileNotFoundError.
    """
    folder = Path(source)
    if not is_directory(folder) or is_sample_file(folder, kind):
        return [folder] if folder.exists() else find_images(source)
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and is_sample_file(path, kind)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise MissingFileError(
            f"the folder {folder} has no files of {_KIND_NAMES[kind]}, such as .npy files"
        )
    return files


@takes_options(InputOptions)
def read_samples(
    path: str | os.PathLike[str],
    model: ModelLike,
    *,
    tokens: Any = None,
    **options: Unpack[InputOptions],
) -> Samples:
    """Read a file of arrays, audio, a table, a volume, a video or texts for a model.

    Parameters
    ----------
    path : path or str
        The file; the suffix decides how it is read, see the notes.
    model : keras.Model, Network, str or pathlib.Path
        The model that the samples are for. A model without known inputs gets arrays as they are, a
        table as a sample in each row, and audio, volumes and videos with the channels last.
    tokens : callable, list of str or None, default None
        For texts and a model that takes indices of tokens: a function of a list of texts, or the
        vocabulary, see `Tokenizer`.
    **options
        See `actgrid.options.InputOptions`. They hold for videos: each frame is prepared like an
        image. All other data are passed to the model unchanged.

    Returns
    -------
    Samples
        Batch, names of the samples, and names of the channels.

    Raises
    ------
    MissingFileError
        If the file does not exist. Also a FileNotFoundError.
    FormatError
        If the file is truncated or does not have the format of its suffix. Also a ValueError.
    ImageError
        If a page or frame cannot be read, or the data take more than 4 GiB. Also an OSError.
    MissingDependencyError
        If the file is a NIfTI file and nibabel is not installed. Also an ImportError.
    ShapeError
        If the samples do not fit the input of the model. Also a ValueError.
    OptionError
        If an option is invalid, or texts are read without `tokens`. Also a ValueError.

    Warns
    -----
    AssumptionWarning
        Once for each model for which the preprocessing ``"auto"`` of videos has to assume x / 255.

    Notes
    -----
    ======================== =====================================================================
    suffix                   samples
    ======================== =====================================================================
    .npy, .npz               a batch, or a single sample without the batch axis. A channel axis of
                             length 1 may be missing. The arrays of a .npz file with several arrays
                             have the names of the inputs.
    .wav                     a sequence (T, channels), or (T,), of values from -1 to 1. Channels are
                             averaged for a model of 1 channel.
    .csv, .tsv               a sequence with a row for each time step, or a table with a sample in
                             each row. The first row may name the columns.
    .nii, .nii.gz            a volume with the axes of the file as (D, H, W), as nibabel's
                             ``get_fdata`` gives it. A fourth axis is that of channels, or of
                             several volumes if the model takes 1 channel.
    .tif, .tiff              a volume with a page for each slice
    .gif, .webp, .png, .apng a video. If the model takes fewer frames, frames at even intervals are
                             used, from the first to the last.
    folder                   a video with an image file for each frame
    .txt                     a text in each line that is not empty
    ======================== =====================================================================

    The length of a sequence and the sides of a volume must be those that the model takes, or the
    model must accept any length.

    Examples
    --------
    >>> import keras
    >>> np.save("signal.npy", np.sin(np.arange(100)))
    >>> model = keras.Sequential([keras.Input((None, 1)), keras.layers.Conv1D(4, 3)])
    >>> samples = read_samples("signal.npy", model)
    >>> samples.batch.shape, samples.names
    ((1, 100, 1), ('signal.npy',))
    """
    path = Path(path)
    is_folder = is_directory(path)
    if not is_folder:
        check_file(path)
    network = load_model(model)
    if isinstance(tokens, (list, tuple)):
        tokens = Tokenizer(tokens)
    inputs = list_inputs(network, tokens)
    name = path.name.lower()
    if name.endswith(".npz"):
        return _read_npz(path, network, inputs)
    if len(inputs) > 1:
        names = ", ".join(repr(sample_input.names[0]) for sample_input in inputs)
        raise ShapeError(
            f"{path} holds a single input; the model takes {len(inputs)} inputs ({names}): "
            "expected a .npz file with an array for each"
        )
    sample_input = find_sample_input(network, tokens)
    if name.endswith(".npy"):
        array = read_npy(path)
        return _name_samples(
            path, array if sample_input is None else sample_input.fit_batch(array, str(path))
        )
    if name.endswith(".txt"):
        return _read_texts(path, network, sample_input, tokens)
    if name.endswith((".csv", ".tsv")):
        return _read_table(path, sample_input)
    if name.endswith(".wav"):
        return _read_audio(path, sample_input)
    if name.endswith((".nii", ".nii.gz")):
        _check_kind(path, "a volume", sample_input, "volume")
        volumes = read_nifti(path, None if sample_input is None else sample_input.channels)
        return _fit_samples(path, volumes, sample_input)
    if name.endswith((".tif", ".tiff")):
        _check_kind(path, "a volume", sample_input, "volume")
        return _fit_samples(path, read_tiff(path), sample_input)
    if is_folder or name.endswith((*_VOLUME_SUFFIXES, ".png")):
        _check_kind(path, "a video", sample_input, "volume")
        return _read_video(path, network, sample_input, options)
    raise FormatError(
        f"{path} has an unknown suffix: expected one of "
        f"{', '.join((*_ARRAY_SUFFIXES, *_VOLUME_SUFFIXES, '.png', '.txt'))}"
    )


def load_samples(sources: Any, model: Any, tokens: Any = None) -> Samples | None:
    """Load all samples of files as one batch; None if the sources are images or no files.

    Parameters
    ----------
    sources : object
        A path, folder or glob, or a list of these; other values give None.
    model : object
        A model that `load_model` returned.
    tokens : object, default None
        See `read_samples`.

    Returns
    -------
    Samples or None
        The samples of all files.

    Raises
    ------
    ShapeError
        If the samples differ in shape, so that they cannot form a batch. Also a ValueError.
    ActgridError
        Errors of `find_sample_files` and `read_samples`.
    """
    paths = sources if isinstance(sources, (list, tuple)) else [sources]
    if not paths or not all(isinstance(path, (str, os.PathLike)) for path in paths):
        return None
    kind = find_sample_kind(model, tokens)
    if kind in (None, "image") and not all(is_sample_file(path, kind) for path in paths):
        return None
    files = [file for path in paths for file in find_sample_files(path, kind)]
    parts = [read_samples(file, model, tokens=tokens) for file in files]
    try:
        batch = join_batches([part.batch for part in parts])
    except ValueError as error:
        raise ShapeError(f"samples of different shapes cannot form a batch: {error}") from error
    return parts[0]._replace(batch=batch, names=tuple(name for p in parts for name in p.names))


def _check_kind(
    path: Path, content: str, sample_input: SampleInput | None, *kinds: SampleKind
) -> None:
    """Raise ShapeError if a file holds samples of another kind than the model takes."""
    if sample_input is not None and sample_input.kind not in kinds:
        raise ShapeError(
            f"{path} holds {content}; the model takes {_KIND_NAMES[sample_input.kind]}"
        )


def _name_samples(
    path: Path, batch: Array | dict[str, Array], features: tuple[str, ...] | None = None
) -> Samples:
    """Return a batch with the names of its samples."""
    count = len(next(iter(batch.values())) if isinstance(batch, dict) else np.atleast_1d(batch))
    stem, dot, suffix = path.name.partition(".")
    names = [f"{stem}[{index}]{dot}{suffix}" for index in range(count)]
    return Samples(batch, (path.name,) if count == 1 else tuple(names), features)


def _fit_samples(
    path: Path,
    batch: Array,
    sample_input: SampleInput | None,
    features: tuple[str, ...] | None = None,
) -> Samples:
    """Return a batch with the channels last in the shape of the model input, and its names."""
    if sample_input is None:
        batch = cast_values(batch, "float32", path)
    else:
        batch = sample_input.fit_channels_last(batch, path)
    return _name_samples(path, batch, features)


def _read_npz(path: Path, model: Any, inputs: list[SampleInput]) -> Samples:
    """Read the arrays of a .npz file: the input of the model, or its inputs by name."""
    arrays = read_npz(path)
    if not inputs:
        batch = dict(arrays)
        return _name_samples(path, next(iter(batch.values())) if len(batch) == 1 else batch)
    if len(arrays) == len(inputs) == 1:
        (name,) = arrays
        return _name_samples(path, inputs[0].fit_batch(arrays[name], f"{name!r} in {path}"))
    inputs_by_name = {name: entry for entry in inputs for name in entry.names}
    batch = {
        name: (
            inputs_by_name[name].fit_batch(array, f"{name!r} in {path}")
            if name in inputs_by_name
            else array
        )
        for name, array in arrays.items()
    }
    specs = {
        name: tensorflow().TensorSpec(
            array.shape, array.dtype if array.dtype.kind not in "SU" else "string"
        )
        for name, array in batch.items()
    }
    try:
        prepare_inputs(model, specs)
    except ActgridError as error:
        raise ShapeError(
            f"{path} must contain an array for each input of the model: {error}"
        ) from error
    counts = {len(np.atleast_1d(array)) for array in batch.values()}
    if len(counts) > 1:
        listed = ", ".join(f"{name!r}: {array.shape}" for name, array in batch.items())
        raise ShapeError(
            f"{path} has arrays of different lengths: got {listed}; expected the same number of "
            "samples"
        )
    return _name_samples(path, batch)


def _read_texts(path: Path, model: Any, sample_input: SampleInput | None, tokens: Any) -> Samples:
    """Read the lines of a text file as texts, and convert them to the input of the model."""
    if sample_input is None or sample_input.kind != "table":
        _check_kind(path, "texts", sample_input, "text")
    text = read_text_file(path, "a text in UTF-8")
    texts = [line.strip() for line in text.split("\n") if line.strip()]
    if not texts:
        raise FormatError(f"{path} contains no text: expected a text in each line")
    try:
        batch = np.asarray(encode_texts(texts, model, tokens))
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    if sample_input is not None and sample_input.dtype != "string":
        batch = cast_values(batch, sample_input.dtype, path)
    return _name_samples(path, batch)._replace(texts=tuple(texts))


def _read_table(path: Path, sample_input: SampleInput | None) -> Samples:
    """Read a table as a sequence, or with a sample in each row."""
    if sample_input is None or sample_input.kind != "text" or sample_input.dtype == "string":
        # A model that takes indices of tokens also takes a table of them.
        _check_kind(path, "a table or a sequence", sample_input, "table", "sequence")
    table = read_table(path)
    if sample_input is not None and sample_input.kind == "sequence":
        return _fit_samples(path, table.values[None], sample_input, table.columns)
    values = table.values
    if sample_input is not None and len(sample_input.shape) == 1 and values.shape[1] == 1:
        values = values[:, 0]
    try:
        return _fit_samples(path, values, sample_input, table.columns)
    except ShapeError as error:
        hint = ""
        if table.columns is not None and not table.columns[0]:
            hint = "; the first column has no name: leave out the numbers of the rows"
        raise ShapeError(f"{error}{hint}") from error


def _read_audio(path: Path, sample_input: SampleInput | None) -> Samples:
    """Read audio as a sequence (T, C), or (T,) for a model that takes (N, T)."""
    _check_kind(path, "audio", sample_input, "sequence", "table")
    audio = read_wave(path)
    if sample_input is None:
        return _fit_samples(path, audio[None], None)
    if sample_input.kind == "table":
        return _fit_samples(path, audio.mean(axis=1)[None], sample_input)
    if sample_input.channels == 1:
        audio = audio.mean(axis=1, keepdims=True)
    if sample_input.channels not in (None, audio.shape[1]):
        raise ShapeError(
            f"{path} has {audio.shape[1]} channels; the model takes {sample_input.channels}"
        )
    return _fit_samples(path, audio[None], sample_input)


def _read_video(
    path: Path, model: Any, sample_input: SampleInput | None, options: InputOptions
) -> Samples:
    """Read a video, and prepare its frames like images."""
    channels, count = 3, None
    height, width = None, None
    if sample_input is not None:
        channels = sample_input.channels or 3
        sides = [
            side
            for axis, side in enumerate(sample_input.shape)
            if axis not in (0, sample_input.channel_axis)
        ]
        count, height, width = sides
    if channels not in MODES:
        raise ShapeError(
            f"{path} holds a video; the model takes {channels} channels: expected "
            "1, 3 or 4 for a video"
        )
    if options["size"] is not None:
        height, width = parse_image_size(options["size"])
    prepare = get_preprocess_function(options["preprocess"], model)
    frames, total = read_video(path, channels, count, (height, width), options["fit"])
    samples = _fit_samples(path, np.asarray(prepare(frames))[None], sample_input)
    if len(frames) == total:
        return samples
    return samples._replace(names=(f"{path.name} ({len(frames)} of {total} frames)",))
