"""Kernels: symmetric positive semi-definite functions k(x, z), evaluated as matrices.

Each kernel is a small frozen object with the parameters of scikit-learn's pairwise kernels. Calling it gives
the matrix of k(xᵢ, zⱼ): one BLAS product and a few operations in place on blocks of rows that stay in cache.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, did_you_mean

Array = npt.NDArray[Any]

#: Elements of a block of rows of a kernel matrix: 2 MiB, which stays in cache.
BLOCK = 1 << 18
#: Up to so many features, squared distances are summed directly, which is as fast as a product and exact.
DIRECT = 6
#: A squared distance below this share of ‖x‖² + ‖z‖² has lost digits to cancellation and is summed anew.
CLOSE = 1e-3
#: Largest γ(‖x‖² + ‖z‖²) for which the cancellation in ‖x‖² + ‖z‖² − 2xᵀz does not matter to exp(−γd²).
HARMLESS = 100.0
#: Rows that a length is measured on.
SAMPLE = 1000


class Kernel(Protocol):
    """A kernel k(x, z); see `KERNELS` for those of the package."""

    name: ClassVar[str]
    scale: ClassVar[str | None]

    def __call__(self, X: Array, Z: Array | None = None) -> Array:
        """Return the matrix of k(xᵢ, zⱼ), shape (n, m); Z defaults to X."""
        ...

    def lower(self, X: Array) -> Array:
        """Return k(xᵢ, xⱼ) for j ≤ i, shape (n, n); what is above the diagonal is not to be read."""
        ...

    def diagonal(self, X: Array) -> Array:
        """Return k(xᵢ, xᵢ), shape (n,)."""
        ...

    def resolve(self, X: Array) -> Self:
        """Return the kernel with parameters that depend on the data (None, "scale", "median") as numbers."""
        ...


class _Blockwise:
    """A kernel whose matrix is filled in blocks of rows."""

    name: ClassVar[str]
    scale: ClassVar[str | None] = "gamma"

    def _rows(self, X: Array, Z: Array) -> Callable[[int, int, int, Array], None]:
        """Return fill(i, j, m, out), which writes k(x_i … x_{j−1}, z_0 … z_{m−1}) to out (j − i, m)."""
        raise NotImplementedError

    def resolve(self, X: Array) -> Self:
        """Return the kernel with gamma as a number."""
        if self.scale is None:
            return self
        name = self.scale
        value = _length(getattr(self, name), X, name)
        return replace(self, **{name: value})  # type: ignore[type-var]

    def diagonal(self, X: Array) -> Array:
        """Return k(xᵢ, xᵢ), shape (n,)."""
        return np.ones(len(X))

    def __call__(self, X: Array, Z: Array | None = None) -> Array:
        """Return the matrix of k(xᵢ, zⱼ), shape (n, m); Z defaults to X.

        Parameters
        ----------
        X : array, shape (n, p)
            Rows.
        Z : array, shape (m, p), optional
            Other rows.

        Raises
        ------
        InputError
            If the shapes do not fit, or a parameter makes no sense.
        """
        X = _matrix(X, "X")
        if Z is None:
            out = self.lower(X)
            _mirror(out)
            return out
        Z = _matrix(Z, "Z")
        if X.shape[1] != Z.shape[1]:
            raise InputError(f"X has {X.shape[1]} columns and Z has {Z.shape[1]}; a kernel needs the same.")
        fill = self.resolve(Z)._rows(X, Z)
        out = np.empty((len(X), len(Z)))
        for i, j in _blocks(len(X), len(Z)):
            fill(i, j, len(Z), out[i:j])
        return out

    def lower(self, X: Array) -> Array:
        """Return k(xᵢ, xⱼ) for j ≤ i, shape (n, n); what is above the diagonal is not to be read."""
        X = _matrix(X, "X")
        n = len(X)
        kernel = self.resolve(X)
        fill, out = kernel._rows(X, X), np.empty((n, n))
        for i, j in _blocks(n, n):
            fill(i, j, j, out[i:j, :j])
        out[np.diag_indices(n)] = kernel.diagonal(X)
        return out


def _matrix(X: Any, name: str) -> Array:
    values: Array = np.asarray(X, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(
            f"{name} must be two-dimensional with at least one column; got shape {values.shape}."
        )
    return values


def _blocks(n: int, m: int) -> Iterator[tuple[int, int]]:
    step = max(16, BLOCK // max(1, m))
    for i in range(0, n, step):
        yield i, min(n, i + step)


def _mirror(matrix: Array) -> None:
    """Copy the part below the diagonal to the part above it, tile by tile."""
    n, step = len(matrix), 256
    for i in range(0, n, step):
        j = min(n, i + step)
        matrix[:i, i:j] = matrix[i:j, :i].T
        corner = matrix[i:j, i:j]
        corner[...] = np.tril(corner) + np.tril(corner, -1).T


def _length(value: Any, X: Array, name: str) -> float:
    """Return gamma (or a length scale) as a number: None is 1/p (or 1), "scale" 1/(p·var), "median" 1/(2·m²).

    m is the median Euclidean distance between rows; a length scale is √(1/(2γ)).
    """
    p = X.shape[1]
    as_length = name == "length_scale"
    if isinstance(value, str):
        if value == "scale":
            spread = p * float(X.var())
            gamma = 1 / spread if spread > 0 else 1.0
        elif value == "median":
            gamma = median_gamma(X)
        else:
            hint = did_you_mean(value, ("scale", "median"))
            raise InputError(f"{name} must be a positive number, 'scale' or 'median'; got {value!r}.{hint}")
        return float(np.sqrt(0.5 / gamma)) if as_length else gamma
    if value is None:
        return 1.0 if as_length else 1.0 / p
    return _positive(value, name)


def _positive(value: Any, name: str) -> float:
    real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not real or not (np.isfinite(value) and value > 0):
        raise InputError(f"{name} must be a positive number; got {value!r}.")
    return float(value)


def median_gamma(X: Array) -> float:
    """Return 1/(2·m²), m the median distance between different rows of an even sample of X.

    A common first guess for an RBF kernel (Gretton et al., 2012, "A kernel two-sample test").

    >>> median_gamma(np.array([[0.0], [1.0], [2.0]]))
    0.5
    """
    sample = X[:: -(-len(X) // SAMPLE)]
    d2 = squared_distances(sample, sample)[np.tril_indices(len(sample), -1)]
    d2 = d2[d2 > 0]
    return 0.5 / float(np.median(d2)) if len(d2) else 1.0


def squared_distances(X: Array, Z: Array) -> Array:
    """Return ‖xᵢ − zⱼ‖², shape (n, m), with small distances to full relative accuracy.

    >>> squared_distances(np.array([[0.0, 1e8]]), np.array([[3.0, 1e8 + 4]]))
    array([[25.]])
    """
    fill, out = _distance_rows(X, Z), np.empty((len(X), len(Z)))
    for i, j in _blocks(len(X), len(Z)):
        fill(i, j, len(Z), out[i:j])
    return out


def _distance_rows(X: Array, Z: Array) -> Callable[[int, int, int, Array], None]:
    """Return fill(i, j, m, out) for squared distances: a product, and sums where it would cancel."""
    p = X.shape[1]
    if p <= DIRECT:
        return lambda i, j, m, out: _direct(X[i:j], Z[:m], out)
    origin = Z.mean(axis=0)
    left, right = _augmented(X - origin, Z - origin, -1.0)
    level_x, level_z = -CLOSE * left[:, -2], -CLOSE * right[:, -1]

    def fill(i: int, j: int, m: int, out: Array) -> None:
        np.matmul(left[i:j], right[:m].T, out=out)
        np.negative(out, out=out)
        rows, columns = np.nonzero(out < level_x[i:j, None] + level_z[:m])
        for k in range(0, len(rows), BLOCK // p):
            a, b = rows[k : k + BLOCK // p], columns[k : k + BLOCK // p]
            difference = X[i + a] - Z[b]
            out[a, b] = np.einsum("ij,ij->i", difference, difference)

    return fill


def _direct(X: Array, Z: Array, out: Array) -> None:
    out[...] = 0.0
    difference = np.empty_like(out)
    for x, z in zip(X.T, Z.T, strict=True):
        np.subtract(x[:, None], z, out=difference)
        difference *= difference
        out += difference


def _augmented(X: Array, Z: Array, factor: float) -> tuple[Array, Array]:
    """Return matrices whose product is factor·‖x − z‖²: [−2f·X, f‖x‖², 1] and [Z, 1, f‖z‖²]."""
    xx, zz = np.einsum("ij,ij->i", X, X), np.einsum("ij,ij->i", Z, Z)
    left = np.column_stack([-2 * factor * X, factor * xx, np.ones(len(X))])
    return left, np.column_stack([Z, np.ones(len(Z)), factor * zz])


@dataclass(frozen=True)
class Linear(_Blockwise):
    """k(x, z) = xᵀz.

    >>> Linear()(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    array([[11.]])
    """

    name: ClassVar[str] = "linear"
    scale: ClassVar[str | None] = None

    def diagonal(self, X: Array) -> Array:
        """Return ‖xᵢ‖²."""
        return np.asarray(np.einsum("ij,ij->i", X, X))

    def _rows(self, X: Array, Z: Array) -> Callable[[int, int, int, Array], None]:
        def fill(i: int, j: int, m: int, out: Array) -> None:
            np.matmul(X[i:j], Z[:m].T, out=out)

        return fill


@dataclass(frozen=True)
class Polynomial(_Blockwise):
    """k(x, z) = (γ·xᵀz + c)ᵈ, with d = `degree`, a whole number, and c = `coef0` ≥ 0.

    `gamma` None stands for 1/p. With c < 0, or d not whole, this is no positive semi-definite kernel.

    >>> Polynomial(degree=2, gamma=1.0)(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    array([[144.]])
    """

    degree: int = 3
    gamma: float | str | None = None
    coef0: float = 1.0
    name: ClassVar[str] = "polynomial"

    def resolve(self, X: Array) -> Self:
        """Return the kernel with gamma as a number, its parameters checked."""
        if isinstance(self.degree, bool) or self.degree != int(self.degree) or self.degree < 1:
            raise InputError(f"degree must be a whole number of at least 1; got {self.degree!r}.")
        if not self.coef0 >= 0:
            raise InputError(
                f"coef0 must not be negative in a positive semi-definite kernel; got {self.coef0!r}."
            )
        return super().resolve(X)

    def diagonal(self, X: Array) -> Array:
        """Return (γ‖xᵢ‖² + c)ᵈ."""
        gamma = _length(self.gamma, X, "gamma")
        return np.asarray((gamma * np.einsum("ij,ij->i", X, X) + self.coef0) ** int(self.degree))

    def _rows(self, X: Array, Z: Array) -> Callable[[int, int, int, Array], None]:
        scaled = float(self.gamma) * X  # type: ignore[arg-type]
        degree = int(self.degree)

        def fill(i: int, j: int, m: int, out: Array) -> None:
            np.matmul(scaled[i:j], Z[:m].T, out=out)
            out += self.coef0
            base = out.copy()
            for _ in range(degree - 1):
                out *= base

        return fill


@dataclass(frozen=True)
class RBF(_Blockwise):
    """Gaussian kernel k(x, z) = exp(−γ‖x − z‖²).

    `gamma` is a number, None for 1/p, "scale" for 1/(p·var X) or "median" for 1/(2·median distance²).

    >>> RBF(gamma=0.5)(np.array([[0.0], [2.0]])).round(4)
    array([[1.    , 0.1353],
           [0.1353, 1.    ]])
    """

    gamma: float | str | None = None
    name: ClassVar[str] = "rbf"

    def _rows(self, X: Array, Z: Array) -> Callable[[int, int, int, Array], None]:
        gamma = float(self.gamma)  # type: ignore[arg-type]
        origin = Z.mean(axis=0)
        left, right = _augmented(X - origin, Z - origin, -gamma)
        if -(left[:, -2].min(initial=0.0) + right[:, -1].min(initial=0.0)) > HARMLESS:
            distances = _distance_rows(X, Z)

            def accurate(i: int, j: int, m: int, out: Array) -> None:
                distances(i, j, m, out)
                out *= -gamma
                np.exp(out, out=out)

            return accurate

        def fill(i: int, j: int, m: int, out: Array) -> None:
            np.matmul(left[i:j], right[:m].T, out=out)
            np.minimum(out, 0.0, out=out)
            np.exp(out, out=out)

        return fill


@dataclass(frozen=True)
class Laplacian(_Blockwise):
    """k(x, z) = exp(−γ‖x − z‖₁), with the sum of absolute differences.

    `gamma` is a number, None for 1/p, "scale" for 1/(p·var X) or "median" for 1/(2·median distance²).

    >>> Laplacian(gamma=1.0)(np.array([[0.0, 0.0]]), np.array([[1.0, 2.0]])).round(4)
    array([[0.0498]])
    """

    gamma: float | str | None = None
    name: ClassVar[str] = "laplacian"

    def _rows(self, X: Array, Z: Array) -> Callable[[int, int, int, Array], None]:
        from scipy.spatial.distance import cdist

        gamma = float(self.gamma)  # type: ignore[arg-type]

        def fill(i: int, j: int, m: int, out: Array) -> None:
            np.multiply(cdist(X[i:j], Z[:m], "cityblock"), -gamma, out=out)
            np.exp(out, out=out)

        return fill


@dataclass(frozen=True)
class Matern(_Blockwise):
    """Matérn kernel of smoothness ν ∈ {0.5, 1.5, 2.5}, with r = ‖x − z‖/ℓ.

    ν = 0.5: e⁻ʳ;  ν = 1.5: (1 + √3·r)·e^(−√3·r);  ν = 2.5: (1 + √5·r + 5r²/3)·e^(−√5·r). `length_scale` ℓ is
    a number, None for 1, or "scale" or "median" for √(1/(2γ)) with the γ of that name of an RBF kernel.
    Rasmussen and Williams (2006), "Gaussian processes for machine learning", eq. 4.17.

    >>> Matern(length_scale=2.0, nu=0.5)(np.array([[0.0]]), np.array([[2.0]])).round(4)
    array([[0.3679]])
    """

    length_scale: float | str | None = 1.0
    nu: float = 1.5
    name: ClassVar[str] = "matern"
    scale: ClassVar[str | None] = "length_scale"

    def resolve(self, X: Array) -> Self:
        """Return the kernel with its length scale as a number, its smoothness checked."""
        if self.nu not in (0.5, 1.5, 2.5):
            raise InputError(f"nu must be 0.5, 1.5 or 2.5; got {self.nu!r}. RBF is the limit of large nu.")
        return super().resolve(X)

    def _rows(self, X: Array, Z: Array) -> Callable[[int, int, int, Array], None]:
        distances = _distance_rows(X, Z)
        factor = 2 * self.nu / float(self.length_scale) ** 2  # type: ignore[arg-type]

        def fill(i: int, j: int, m: int, out: Array) -> None:
            distances(i, j, m, out)
            out *= factor
            np.sqrt(out, out=out)
            polynomial = None
            if self.nu == 1.5:
                polynomial = 1 + out
            elif self.nu == 2.5:
                polynomial = 1 + out + out * out / 3
            np.negative(out, out=out)
            np.exp(out, out=out)
            if polynomial is not None:
                out *= polynomial

        return fill


@dataclass(frozen=True)
class Precomputed:
    """The rows of X are already rows of a kernel matrix: k(xᵢ, training row j) stands in column j."""

    name: ClassVar[str] = "precomputed"
    scale: ClassVar[str | None] = None

    def resolve(self, X: Array) -> Self:  # noqa: ARG002
        """Return itself."""
        return self

    def __call__(self, X: Array, Z: Array | None = None) -> Array:
        """Return X as it is: a kernel matrix of shape (n, m), and (n, n) without Z.

        Raises
        ------
        InputError
            If a square matrix is needed and X is not square, or not symmetric.
        """
        X = _matrix(X, "X")
        if Z is not None:
            return X
        if X.shape[0] != X.shape[1]:
            raise InputError(
                f"kernel='precomputed' needs a square matrix of k(x_i, x_j) to fit; got shape {X.shape}."
            )
        return _symmetric(X, "the precomputed kernel matrix")

    def lower(self, X: Array) -> Array:
        """Return X, checked to be square and symmetric."""
        return self(X)

    def diagonal(self, X: Array) -> Array:
        """Return the diagonal of X."""
        return np.asarray(X.diagonal())


def _symmetric(K: Array, what: str) -> Array:
    step = max(1, BLOCK // len(K))
    size = float(np.abs(K).max(initial=0.0))
    for i in range(0, len(K), step):
        if not np.allclose(K[i : i + step], K[:, i : i + step].T, rtol=0, atol=1e-10 * size):
            raise InputError(f"{what} is not symmetric (or not finite); pass (K + K.T) / 2 if you mean that.")
    return K


@dataclass(frozen=True)
class Custom:
    """Any function (X, Z) -> matrix of k(xᵢ, zⱼ), symmetric and positive semi-definite.

    >>> Custom(lambda X, Z: X @ Z.T)(np.array([[1.0, 2.0]]))
    array([[5.]])
    """

    function: Callable[..., Any]
    parameters: tuple[tuple[str, Any], ...] = ()
    name: ClassVar[str] = "custom"
    scale: ClassVar[str | None] = None

    def resolve(self, X: Array) -> Self:  # noqa: ARG002
        """Return itself."""
        return self

    def __call__(self, X: Array, Z: Array | None = None) -> Array:
        """Return function(X, Z), its shape checked, and its symmetry when Z is X.

        Raises
        ------
        InputError
            If the function returns no matrix of shape (n, m), or one that is not symmetric.
        """
        X = _matrix(X, "X")
        other = X if Z is None else _matrix(Z, "Z")
        K = np.asarray(self.function(X, other, **dict(self.parameters)), dtype=np.float64)
        if K.shape != (len(X), len(other)):
            raise InputError(
                f"the kernel function returned shape {K.shape} for {len(X)} and {len(other)} rows. "
                "It must take two arrays of rows and return the matrix of all k(x, z), "
                "not one number for two rows."
            )
        return _symmetric(K, "the kernel function's matrix") if Z is None else K

    def lower(self, X: Array) -> Array:
        """Return the whole matrix."""
        return self(X)

    def diagonal(self, X: Array) -> Array:
        """Return k(xᵢ, xᵢ), from small square blocks."""
        return np.concatenate([np.diag(self(X[i : i + 64], X[i : i + 64])) for i in range(0, len(X), 64)])


#: Every kernel of the package that has a name.
KERNELS = (Linear, Polynomial, RBF, Laplacian, Matern, Precomputed)
#: Other names for them.
ALIASES = {"poly": Polynomial}


def as_kernel(kernel: Any, **parameters: Any) -> Any:
    """Return the kernel object for a name, a function (X, Z) -> matrix or a kernel object.

    Parameters
    ----------
    kernel : str, callable or kernel
        "linear", "polynomial" (or "poly"), "rbf", "laplacian", "matern", "precomputed".
    **parameters
        The kernel's own parameters, such as ``gamma`` or ``length_scale``.

    Raises
    ------
    InputError
        For a name or a parameter that does not exist.

    Examples
    --------
    >>> as_kernel("rbf", gamma=0.1)
    RBF(gamma=0.1)
    """
    if isinstance(kernel, (*KERNELS, Custom)):
        return replace(kernel, **_known(type(kernel), parameters)) if parameters else kernel
    if isinstance(kernel, str):
        names = {cls.name: cls for cls in KERNELS} | ALIASES
        if kernel not in names:
            raise InputError(
                f"kernel {kernel!r} is not known.{did_you_mean(kernel, names)} "
                f"Choose from: {', '.join(names)}; "
                "or give a function (X, Z) -> matrix."
            )
        return names[kernel](**_known(names[kernel], parameters))
    if inspect.isclass(kernel) or not callable(kernel):
        raise InputError(
            f"kernel must be a name, a kernel object or a function (X, Z) -> matrix, not {kernel!r}."
        )
    return Custom(kernel, tuple(sorted(parameters.items())))


def _known(cls: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters, each of which must be one of the kernel's own."""
    own = [field.name for field in dataclasses.fields(cls)]
    for name in parameters:
        if name not in own:
            takes = f"its parameters: {', '.join(own)}" if own else "it has no parameters"
            raise InputError(
                f"kernel '{cls.name}' has no parameter {name!r}.{did_you_mean(name, own)} ({takes}.)"
            )
    return parameters
