"""Is the answer right? Residuals measured on the data, refinement, and the expected correct digits."""

from elltwo.diagnostics.digits import PROBES, correct_digits
from elltwo.diagnostics.interpolation import Interpolation
from elltwo.diagnostics.optimum import EXTENDED_SIZE, MOST_STEPS, SHRINKS_BY, Optimum, refine

__all__ = [
    "EXTENDED_SIZE",
    "MOST_STEPS",
    "PROBES",
    "SHRINKS_BY",
    "Interpolation",
    "Optimum",
    "correct_digits",
    "refine",
]
