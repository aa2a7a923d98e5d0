"""`RandomFeatures`: random Fourier features of a kernel as a scikit-learn transformer."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from elltwo.data.random_features import FourierMap, MappedSource
from elltwo.errors import InputError
from elltwo.kernels import as_kernel

Array = npt.NDArray[Any]


class RandomFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features φ with φ(x)ᵀφ(z) ≈ k(x, z): ridge on them is approximate kernel ridge, at the cost of ridge.

    φ(x) = √(2/D)·[cos ωⱼᵀx, sin ωⱼᵀx], with D/2 frequencies ω drawn from the kernel's spectral density. The
    error of each k(x, z) has a standard deviation of at most 1/√D.

    Parameters
    ----------
    kernel : {"rbf", "matern", "laplacian"}, default "rbf"
    n_features : int, default 1000
        D, an even number.
    gamma : float, "scale" or "median", optional
        Of "rbf" and "laplacian". None is 1/p, "scale" 1/(p·var X), "median" 1/(2·median distance²).
    kernel_params : dict, optional
        `length_scale` and `nu` of "matern".
    random_state : int or RandomState, optional
        Seed of the frequencies; None draws others each time.

    Attributes
    ----------
    map_ : FourierMap
        The fitted map; `map_.source(source)` gives any source these features, block by block.
    kernel_ : kernel object
        With all its parameters as numbers.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import Ridge
    >>> from elltwo.interfaces.sklearn.random_features import RandomFeatures
    >>> from sklearn.pipeline import make_pipeline
    >>> X = np.random.default_rng(0).uniform(-3, 3, size=(500, 1))
    >>> y = np.sin(X[:, 0])
    >>> model = make_pipeline(RandomFeatures(n_features=100, random_state=0), Ridge()).fit(X, y)
    >>> bool(model.score(X, y) > 0.999)
    True

    References
    ----------
    Rahimi and Recht (2007), "Random features for large-scale kernel machines".
    """

    def __init__(
        self,
        kernel: str = "rbf",
        *,
        n_features: int = 1000,
        gamma: Any = None,
        kernel_params: Any = None,
        random_state: Any = None,
    ) -> None:
        self.kernel = kernel
        self.n_features = n_features
        self.gamma = gamma
        self.kernel_params = kernel_params
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Draw the frequencies; of X only the number of columns matters, unless gamma is measured on it.

        Parameters
        ----------
        X : array or table, shape (n, p)
            Features.
        y : ignored
            There for pipelines.

        Raises
        ------
        InputError
            For a kernel without a known density, or parameters that make no sense.
        """
        X = validate_data(self, X, dtype=np.float64)
        parameters = {} if self.kernel_params is None else dict(self.kernel_params)
        if self.gamma is not None:
            parameters["gamma"] = self.gamma
        self.kernel_ = as_kernel(self.kernel, **parameters).resolve(X)
        self.map_ = FourierMap.draw(
            self.kernel_.name,
            X.shape[1],
            self.n_features,
            _generator(self.random_state),
            **vars(self.kernel_),
        )
        self._n_features_out = self.n_features
        return self

    def transform(self, X: Any) -> Array:
        """Return φ(x) for rows X (n, p), shape (n, D)."""
        check_is_fitted(self)
        return self.map_(validate_data(self, X, dtype=np.float64, reset=False))

    def source(self, source: Any) -> MappedSource:
        """Return a source with these features in place of its own, computed block by block."""
        check_is_fitted(self)
        if source.n_features != self.n_features_in_:
            raise InputError(
                f"the source has {source.n_features} features; these were made for {self.n_features_in_}."
            )
        return self.map_.source(source)


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        random_state = int(random_state.randint(2**31))
    if random_state is None or (isinstance(random_state, (int, np.integer)) and random_state >= 0):
        return np.random.default_rng(random_state)
    raise InputError(f"random_state must be None, an integer ≥ 0 or a RandomState; got {random_state!r}.")
