"""`actgrid.DatasetStats`: statistics of every channel over many images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import write_file
from actgrid.errors import FormatError, MissingFileError, OptionError
from actgrid.figures.grids import batch_size
from actgrid.models import LayerInfo
from actgrid.option_checks import integer_option, thread_count
from actgrid.option_groups import takes_options
from actgrid.options import TopOptions
from actgrid.rendering.stats import import_pandas
from actgrid.statistics.accumulator import Accumulator
from actgrid.statistics.layer_stats import NEARLY_DEAD, LayerStats
from actgrid.statistics.measurements import MeasuredLayer, measure_batch
from actgrid.statistics.storage import from_bytes, to_bytes

if TYPE_CHECKING:
    import pandas
    from typing_extensions import Unpack

__all__ = ["STATISTICS", "DatasetStats", "add_image", "bytes_of", "stats_from", "top_thresholds"]

Array = npt.NDArray[Any]

# The file that a run leaves them in.
STATISTICS = "stats.npz"


@takes_options(TopOptions)
class DatasetStats:
    """Statistics of every channel over a dataset: gathered image by image, merged, saved.

    Neither the order in which images are added nor how they are spread over several of these that
    are merged matters to the result, but for the last digits of means and standard deviations
    (1e-6 relative). Those are merged by the formula of Chan, Golub and LeVeque, *Updating Formulae
    and a Pairwise Algorithm for Computing Sample Variances* (1979), in float64.

    Parameters
    ----------
    **options
        See `actgrid.options.TopOptions`.

    Attributes
    ----------
    images : int
        Number of images that were added.

    Raises
    ------
    OptionError
        If `top` is not a positive integer.

    Examples
    --------
    >>> extractor = actgrid.Extractor(model, "*conv*")
    >>> stats = actgrid.DatasetStats()
    >>> for names, x in batches:
    ...     stats.update(extractor(x), extractor.layers, names)
    >>> stats.layers["block1_conv1"].dead.sum()
    3
    >>> stats.save("stats.npz")
    """

    def __init__(self, **options: Unpack[TopOptions]) -> None:
        self._accumulator = Accumulator(options["top"])

    @classmethod
    def _of(cls, accumulator: Accumulator) -> DatasetStats:
        stats = cls(top=accumulator.top)
        stats._accumulator = accumulator
        return stats

    def __repr__(self) -> str:
        known = self._accumulator
        return (
            f"<DatasetStats {self.images} images, {len(known.infos)} layers, "
            f"{len(known.maxima)} channels>"
        )

    @property
    def images(self) -> int:
        """Number of images that were added."""
        return self._accumulator.images

    @property
    def top(self) -> int:
        """Number of images kept for each channel."""
        return self._accumulator.top

    @property
    def layers(self) -> dict[str, LayerStats]:
        """Statistics of each layer, by layer path, in the order in which the layers run."""
        known = self._accumulator
        return {path: known.layer_stats(path) for path in known.infos}

    def update(
        self,
        activations: Mapping[str, Array],
        layers: Mapping[str, LayerInfo],
        names: Sequence[str] | None = None,
        *,
        start: int | None = None,
        threads: int | None = 1,
        backend: str = "auto",
    ) -> None:
        """Add the images of a batch.

        Parameters
        ----------
        activations, layers
            By layer path, as an `Extractor` gives them: what it returns, and its `layers`.
        names
            Of the images; None: their indices, ``"000017"``.
        start
            Index of the first of them; None: they follow those that were added.
        threads, backend
            As in `actgrid.render`.

        Raises
        ------
        OptionError, ShapeError
            If there are more or fewer names than images, or the layers are not those of the
            images before. Both are ValueErrors.
        """
        batch = batch_size(activations) if names is None else len(names)
        first = self.images if start is None else integer_option("start", start, 0)
        if names is None:
            names = [f"{first + sample:06}" for sample in range(batch)]
        elif batch != batch_size(activations):
            raise OptionError(f"{batch} names were given for {batch_size(activations)} images")
        thresholds = self._accumulator.thresholds(first)
        found = [
            measure_batch(
                layers[path],
                activation,
                batch=batch,
                threshold=thresholds.get(path),
                threads=thread_count(threads),
                backend=backend,
            )
            for path, activation in activations.items()
        ]
        for sample, one in enumerate(zip(*found, strict=True)):
            self._accumulator.add(first + sample, names[sample], one)

    def merge(self, other: DatasetStats) -> None:
        """Add all images of other statistics, of other images, in place.

        Raises
        ------
        OptionError
            If the other keeps another number of top images.
        ShapeError
            If its layers are others. Both are ValueErrors.
        """
        self._accumulator.merge(other._accumulator)

    def summary(self, share: float = NEARLY_DEAD) -> dict[str, Any]:
        """Return the dead, nearly dead and non-finite channels of each layer, for JSON.

        Parameters
        ----------
        share
            A channel that less than this share of the images activates is nearly dead.
        """
        layers = []
        for path, layer in self.layers.items():
            dead, nearly = np.flatnonzero(layer.dead), np.flatnonzero(layer.nearly_dead(share))
            layers.append(
                {
                    "path": path,
                    "type": layer.info.type,
                    "channels": layer.count.size,
                    "dead": dead.size,
                    "nearly_dead": nearly.size,
                    "nonfinite": int(layer.nonfinite.sum()),
                    "dead_channels": dead.tolist(),
                    "nearly_dead_channels": nearly.tolist(),
                }
            )
        totals = {
            name: sum(layer[name] for layer in layers)
            for name in ("channels", "dead", "nearly_dead", "nonfinite")
        }
        return {
            "images": self.images,
            "top": self.top,
            "nearly_dead_share": share,
            "totals": {"layers": len(layers)} | totals,
            "layers": layers,
        }

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each channel of each layer.

        Returns
        -------
        pandas.DataFrame
            The columns are those of `LayerStats.to_frame`; the index is ``(layer, channel)``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.

        Examples
        --------
        >>> frame = stats.to_frame()
        >>> frame.groupby("layer")["dead"].sum()
        """
        frames = {path: layer.to_frame() for path, layer in self.layers.items()}
        if not frames:
            return import_pandas().DataFrame()
        return import_pandas().concat(frames, names=["layer"])

    def save(self, path: str | Path) -> None:
        """Write everything to a file, whole or not at all; equal statistics make equal files.

        The file is NumPy's ``.npz``, which `numpy.load` reads too: `count`, `mean`, `deviation`
        (the sum of squares), `min`, `max`, `zeros`, `nonfinite`, `activated`, `top_max`,
        `top_index` and `top_place` of the channels of all layers one after the other, and `about`,
        the layers and names as JSON.

        Raises
        ------
        OutputError
            If it cannot be written. Also an OSError.
        """
        write_file(path, to_bytes(self._accumulator))

    @classmethod
    def load(cls, path: str | Path) -> DatasetStats:
        """Return statistics that were saved.

        Parameters
        ----------
        path
            The file, or the folder that a run left it in.

        Raises
        ------
        MissingFileError
            If there is no such file. Also a FileNotFoundError.
        FormatError
            If it holds something else. Also a ValueError.
        """
        path = Path(path)
        if path.is_dir():
            path /= STATISTICS
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise MissingFileError(f"there is no file {path}") from None
        except OSError as error:
            raise FormatError(f"cannot read {path}: {error.strerror or error}") from error
        try:
            return cls._of(from_bytes(data))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def add_image(stats: DatasetStats, index: int, name: str, layers: Sequence[MeasuredLayer]) -> None:
    """Add one image to statistics; see `Accumulator.add`."""
    stats._accumulator.add(index, name, layers)


def top_thresholds(stats: DatasetStats, index: int = 0) -> dict[str, npt.NDArray[np.float64]]:
    """Return the smallest maximum that enters the top, see `Accumulator.thresholds`."""
    return stats._accumulator.thresholds(index)


def bytes_of(stats: DatasetStats) -> bytes:
    """Return the file that `DatasetStats.save` writes."""
    return to_bytes(stats._accumulator)


def stats_from(data: bytes) -> DatasetStats:
    """Return the statistics that `bytes_of` made bytes of.

    Raises
    ------
    FormatError
        If `data` holds something else. Also a ValueError.
    """
    return DatasetStats._of(from_bytes(data))
