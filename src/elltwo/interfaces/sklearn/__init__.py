"""scikit-learn estimators: they validate, translate and delegate; no mathematics lives here."""

from elltwo.interfaces.sklearn.ridge import Ridge
from elltwo.interfaces.sklearn.ridge_cv import RidgeCV

#: Every estimator of the package.
ESTIMATORS = (Ridge, RidgeCV)

__all__ = ["ESTIMATORS", "Ridge", "RidgeCV"]
