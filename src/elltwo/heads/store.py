"""Features in a temporary file, for losses whose solver reads the rows many times."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.memory import CONVERTED_BYTES
from elltwo.data.weights import check_weights
from elltwo.errors import InputError
from elltwo.heads.source import FeatureSource

Array = npt.NDArray[Any]


class StoredFeatures(BlockwiseSource):
    """The rows of a `FeatureSource`, read from it once and kept in a temporary file of n × p numbers.

    The file has no name, is mapped into memory a block at a time, and goes with this object.

    Parameters
    ----------
    source : FeatureSource
        Read in one pass.

    Attributes
    ----------
    codes : array of int, shape (n,)
        The class of each row.

    Raises
    ------
    InputError
        If a batch cannot be used, or there is no room for the file.
    """

    in_memory = True

    def __init__(self, source: FeatureSource) -> None:
        self.outputs, self.counts, self.weighted = source.outputs, source.counts, source.weighted
        self.n_features, self.n_targets = source.n_features, source.n_targets
        self.feature_names, self.target_names = source.feature_names, source.target_names
        labels: list[Array] = []
        weights: list[Array] = []
        kind: Any = None
        with tempfile.TemporaryFile(prefix="elltwo-") as file:
            for X, y, w, _ in source.rows():
                features = source.as_stored(X)
                if not np.isfinite(features).all():
                    raise source.why_not_finite()
                kind = features.dtype if kind is None else kind
                _append(file, features.astype(kind, copy=False))
                labels.append(self.outputs.labels(y))
                if w is not None:
                    weights.append(w)
            file.flush()
            self.codes = np.concatenate(labels)
            self.n_rows: int | None = len(self.codes)
            self._X = np.memmap(file, dtype=kind, mode="r", shape=(self.n_rows, self.n_features))
        self.whole_weights = source.whole_weights
        self._weights = check_weights(np.concatenate(weights), self.n_rows) if weights else None

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows, features as float64."""
        n = len(self.codes)
        step = max(1, CONVERTED_BYTES // (8 * max(self.n_features, self.n_targets)))
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            weights = None if self._weights is None else self._weights[rows]
            X = np.asarray(self._X[rows], dtype=np.float64)
            yield Block(X, self.outputs.members(self.codes[rows]), weights, start)

    def weighted_codes(self) -> Array:
        """Return the class of each row of positive weight."""
        return self.codes if self._weights is None else self.codes[self._weights > 0]

    def keys(self) -> None:
        """Return None: batches have no groups."""


def _append(file: IO[bytes], features: Array) -> None:
    try:
        file.write(np.ascontiguousarray(features).data)
    except OSError as error:
        raise InputError(
            f"the features do not fit into a temporary file in {tempfile.gettempdir()} ({error.strerror}); "
            "loss='logistic' reads them many times and keeps them there. Make room, name another folder "
            "in the environment variable TMPDIR, or use loss='squared', which keeps none."
        ) from error
