"""elltwo: L2 (ridge, Tikhonov) regularisation with the right lambda and a certificate.

Public names are loaded when they are first used, so that `import elltwo` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "elltwo.comparing": ("compare",),
    "elltwo.conventions": ("convert",),
    "elltwo.errors": (
        "ElltwoError",
        "InputError",
        "MissingPackageError",
        "ModelFileError",
        "OutOfMemoryError",
        "Status",
    ),
    "elltwo.fitting": ("fit", "load"),
    "elltwo.interfaces.sklearn": (
        "GLM",
        "ElasticNet",
        "KernelLogisticRegression",
        "KernelRidge",
        "Lasso",
        "LinearSVC",
        "LinearSVR",
        "LogisticRegression",
        "RandomFeatures",
        "Ridge",
        "RidgeCV",
        "RidgeClassifier",
        "SparseLogisticRegression",
    ),
    "elltwo.inference": ("Inference", "infer"),
    "elltwo.results": ("Certificate", "Fit", "Path"),
    "elltwo.selection": ("AIC", "BIC", "GCV", "LOO", "REML", "KFold"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from elltwo.comparing import compare
    from elltwo.conventions import convert
    from elltwo.errors import (
        ElltwoError,
        InputError,
        MissingPackageError,
        ModelFileError,
        OutOfMemoryError,
        Status,
    )
    from elltwo.fitting import fit, load
    from elltwo.inference import Inference, infer
    from elltwo.interfaces.sklearn import (
        GLM,
        ElasticNet,
        KernelLogisticRegression,
        KernelRidge,
        Lasso,
        LinearSVC,
        LinearSVR,
        LogisticRegression,
        RandomFeatures,
        Ridge,
        RidgeClassifier,
        RidgeCV,
        SparseLogisticRegression,
    )
    from elltwo.results import Certificate, Fit, Path
    from elltwo.selection import AIC, BIC, GCV, LOO, REML, KFold


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'elltwo' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
