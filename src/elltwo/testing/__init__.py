"""Conformance checks for a source, loss, penalty or solver of your own.

Each check raises AssertionError, which says what was found where and what the contract asks for. The
package's own parts pass the same checks. What they compare with is written here anew, in plain dense NumPy.
"""

from elltwo.testing.loss import check_loss
from elltwo.testing.penalty import check_penalty
from elltwo.testing.solver import check_solver
from elltwo.testing.source import check_source

__all__ = ["check_loss", "check_penalty", "check_solver", "check_source"]
