"""Features of a frozen network as a source of rows, computed anew in each pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.weights import all_whole, as_counts, not_whole
from elltwo.errors import InputError
from elltwo.heads.batches import Batch
from elltwo.heads.outputs import Outputs

Array = npt.NDArray[Any]

#: The first rows' features are compared between passes, up to a difference that half precision may leave;
#: and a sum over all targets that depends on their order, up to rounding.
COMPARED_ROWS, SAME_FEATURES, SAME_TARGETS = 16, 2e-2, 1e-9
#: What to do about batches that are not the same in each pass.
REMEDY = (
    "Read the rows in a fixed order, without random augmentation, from something that can be read again (a "
    "list, a data set), not from an iterator."
)


class FeatureSource(BlockwiseSource):
    """Batches of features of a frozen network, computed anew in each pass and never held at once.

    Parameters
    ----------
    batches : callable () -> iterator of Batch
        One pass over the rows.
    outputs : Outputs
    first : Batch
        The first batch, which says whether there are weights.
    weights_are : {"analytic", "frequency"}
        As of `MemorySource`.
    n_rows : int, optional
        Number of rows, where it has been counted.
    host : callable
        Turns features into an array.
    """

    in_memory = False
    #: A pass runs the network, which takes far longer than sums over its features.
    few_passes = True

    def __init__(
        self,
        batches: Callable[[], Iterator[Batch]],
        outputs: Outputs,
        first: Batch,
        *,
        weights_are: str = "analytic",
        n_rows: int | None = None,
        host: Callable[[Any], Array] = np.asarray,
    ) -> None:
        self._batches, self.outputs, self.n_rows, self._host = batches, outputs, n_rows, host
        self.n_features, self.n_targets = int(first.X.shape[1]), outputs.n_targets
        self.feature_names = tuple(f"x{j}" for j in range(self.n_features))
        self.target_names = outputs.target_names
        self.weighted = first.weights is not None
        self.counts = as_counts(weights_are) and self.weighted
        self._largest, self._whole = 0.0, True
        self.passes = 0
        self._seen: tuple[Array, Array] | None = None

    @property
    def whole_weights(self) -> bool:  # type: ignore[override]
        """Whether the weights look like frequencies, once a pass has seen them."""
        return self._whole and self._largest > 1

    def keys(self) -> None:
        """Return None: batches have no groups."""

    def blocks(self) -> Iterator[Block]:
        """Iterate over the batches, features as float64 arrays."""
        for X, y, weights, start in self.rows():
            yield Block(np.asarray(self._host(X), dtype=np.float64), y, weights, start)

    def as_stored(self, X: Any) -> Array:
        """Return the features of a batch as an array in the narrowest float that holds them."""
        narrow = str(X.dtype).removeprefix("torch.") in ("float32", "float16", "bfloat16")
        return np.asarray(self._host(X), dtype=np.float32 if narrow else np.float64)

    def rows(self) -> Iterator[tuple[Any, Array, Array | None, int]]:
        """Yield features as they are, numbers (m, T), weights (m,) or None, and the first row's position.

        Raises
        ------
        InputError
            If a batch cannot be used, or the batches are not those of the pass before.
        """
        start, order, features = 0, np.zeros(3), None
        for number, batch in enumerate(self._batches()):
            if features is None:
                features = np.asarray(self._host(batch.X[:COMPARED_ROWS]), dtype=np.float64)
                if self._seen is not None:
                    _compare(features, self._seen[0], SAME_FEATURES, "the features of the first batch")
            y = self.outputs.code(batch.y, number)
            weights = self._weights(batch, number, len(y))
            self._check_width(batch, number, len(y))
            place = np.sin(np.arange(start, start + len(y)) + 1.0)  # any numbers that tell places apart
            order += [len(y), np.abs(y).sum(), place @ y @ np.linspace(0.5, 1.0, y.shape[1])]
            yield batch.X, y, weights, start
            start += len(y)
        if features is None:
            raise InputError("the loader has no batches.")
        self.passes += 1
        if self._seen is not None:
            _compare(order, self._seen[1], SAME_TARGETS, "the targets or their order")
        self._seen = features, order

    def _weights(self, batch: Batch, number: int, m: int) -> Array | None:
        w = batch.weights
        if (w is not None) != self.weighted:
            what = "no weights, but the first has" if w is None else "weights, but the first has none"
            raise InputError(f"batch {number} has {what}. Give every batch (x, y, weights), or none.")
        if w is None:
            return None
        if w.shape != (m,):
            raise InputError(f"batch {number} has weights of shape {w.shape}; one per row is needed: ({m},).")
        w = w.astype(np.float64)
        bad = ~(np.isfinite(w) & (w >= 0))
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"the weight of row {row} of batch {number} is {w[row]:g}; weights must be finite and ≥ 0."
            )
        whole = all_whole(w)
        if self.counts and not whole:
            row = int(np.argmax(w != np.floor(w)))
            raise InputError(not_whole(f"row {row} of batch {number} has weight {w[row]:g}"))
        self._largest, self._whole = max(self._largest, float(w.max(initial=0.0))), self._whole and whole
        return w

    def _check_width(self, batch: Batch, number: int, m: int) -> None:
        if tuple(batch.X.shape) != (m, self.n_features):
            raise InputError(
                f"batch {number} has features of shape {tuple(batch.X.shape)} for {m} target(s); the first "
                f"batch says ({m}, {self.n_features}). The network must give as many features for each row."
            )

    def why_not_finite(self) -> InputError:
        """Return the error that names the first batch and row with NaN or infinity; reads the rows again."""
        for number, (X, *_) in enumerate(self.rows()):
            bad = ~np.isfinite(np.asarray(self._host(X), dtype=np.float64))
            if bad.any():
                row = int(np.argmax(bad.any(axis=1)))
                return InputError(
                    f"the features hold {int(bad.sum())} NaN or infinite value(s) in batch {number}, first "
                    f"in its row {row} (feature {int(np.argmax(bad[row]))}). Look at the inputs of that "
                    "batch; in float16, values above 65504 overflow, and bfloat16 or float32 would hold them."
                )
        return super().why_not_finite()


def _compare(now: Array, before: Array, tolerance: float, what: str) -> None:
    """Raise InputError if a pass does not show what the one before did."""
    size = np.abs(before).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        same = now.shape == before.shape and not np.any(np.abs(now - before) > tolerance * size)
    if not same:
        raise InputError(
            f"{what} differ from those of the pass before, and this fit needs the same rows in each. {REMEDY}"
            " One pass is enough for alpha='gcv', 'reml' or a number."
        )
