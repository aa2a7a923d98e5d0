"""Pictures of a fit along its alphas, drawn with matplotlib: `pip install 'elltwo[plot]'`.

Each function takes a `Fit` or a fitted estimator and returns the matplotlib Axes it drew on, so that
titles, limits and colours can be changed afterwards.
"""

from elltwo.plot.axes import require_matplotlib
from elltwo.plot.coefficients import plot_coefficients
from elltwo.plot.figure import FORMATS, save_figure
from elltwo.plot.score import plot_path

__all__ = ["FORMATS", "plot_coefficients", "plot_path", "require_matplotlib", "save_figure"]
