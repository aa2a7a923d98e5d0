"""Pictures of the path: what is on the axes is what the fit holds, and files are written whole or not."""

import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import elltwo
from elltwo import LOO, InputError, KFold, MissingPackageError, Ridge
from elltwo.errors import Status
from elltwo.interfaces.cli.main import cli
from elltwo.plot import FORMATS, plot_coefficients, plot_path, save_figure
from elltwo.selection import RULES

mpl.use("Agg")
DIABETES = str(Path(elltwo.__file__).parent / "data" / "diabetes.csv")
START = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(60, 4)) * [1, 10, 0.1, 3]
    return X, X @ [1.0, 0.2, -3.0, 0.0] + rng.normal(size=60) + 7


@pytest.fixture(scope="module")
def fitted(data):
    return Ridge(standardize=True).fit(*data)


def lines(ax, start):
    """Return the lines on the axes whose label starts with some text."""
    return [line for line in ax.get_lines() if line.get_label().startswith(start)]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def top_axis(ax):
    return next(other for other in ax.figure.axes if other is not ax)


# ------------------------------------------------------------------------------------- the score


def test_the_curve_is_the_score_and_the_band_one_standard_error(fitted, axes):
    assert plot_path(fitted, axes) is axes
    path = fitted.path_
    (curve,) = lines(axes, "leave-one-out")
    assert np.array_equal(curve.get_xdata(), path.alphas)
    assert np.array_equal(curve.get_ydata(), path.score)
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for sign in (-1, 1):
        edge = np.column_stack([path.alphas, path.score + sign * path.score_se])
        assert all(np.isclose(corners, point, rtol=1e-12).all(axis=1).any() for point in edge)
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "mean squared error, held-out rows"


def test_the_choice_is_marked_and_explained(fitted, axes):
    plot_path(fitted, axes)
    (line,) = lines(axes, "chosen")
    assert np.allclose(line.get_xdata(), fitted.alpha_)
    assert f"α = {fitted.alpha_:.4g}" in line.get_label()
    (dot,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert dot.get_xdata()[0] == fitted.alpha_
    assert dot.get_ydata()[0] == fitted.path_.score.min()
    assert "lowest score" not in " ".join(legend(axes))
    assert "edge" not in " ".join(legend(axes))


def test_the_axis_above_tells_the_effective_degrees_of_freedom(fitted, axes):
    plot_path(fitted, axes)
    top = top_axis(axes)
    df = dict(zip(fitted.path_.alphas, fitted.path_.df, strict=True))
    shown = {
        x: float(text.get_text()) for x, text in zip(top.get_xticks(), top.get_xticklabels(), strict=True)
    }
    assert len(shown) >= 5
    assert all(abs(df[x] - text) <= 0.05 * df[x] + 0.005 for x, text in shown.items())
    axes.set_xlim(1, 100)
    assert top.get_xlim() == axes.get_xlim()


def test_the_one_standard_error_rule_shows_the_lowest_score_too(data, axes):
    model = Ridge(LOO(one_se=True)).fit(*data)
    plot_path(model, axes)
    (lowest,) = lines(axes, "lowest score")
    best = model.path_.alphas[model.path_.score.argmin()]
    assert np.allclose(lowest.get_xdata(), best)
    (chosen,) = lines(axes, "chosen")
    assert chosen.get_xdata()[0] > best


@pytest.mark.parametrize(
    ("alphas", "status", "text", "at"),
    [
        ([1e6, 1e7], Status.EDGE_LOW, "edge: the smallest α tried", 1e6),
        ([1e-9, 1e-8], Status.EDGE_HIGH, "edge: the largest α tried", 1e-8),
    ],
)
def test_an_optimum_on_the_edge_is_marked(data, axes, alphas, status, text, at):
    X, y = data
    noisy = y + np.random.default_rng(0).normal(scale=30, size=len(y))
    model = Ridge(LOO(alphas=alphas)).fit(X, y if status is Status.EDGE_LOW else noisy)
    assert model.fit_.status[0] is status
    plot_path(model, axes)
    (edge,) = lines(axes, text)
    assert edge.get_xdata()[0] == at


def test_alphas_are_drawn_in_order_and_zero_has_a_place(data, axes):
    model = Ridge(LOO(alphas=[10, 0, 1, 0.1])).fit(*data)
    plot_path(model, axes)
    (curve,) = lines(axes, "leave-one-out")
    assert curve.get_xdata().tolist() == [0, 0.1, 1, 10]
    assert np.array_equal(curve.get_ydata(), model.path_.score[[1, 3, 2, 0]])
    assert axes.get_xscale() == "symlog"
    assert top_axis(axes).get_xticklabels()[0].get_text() == "4"
    axes.figure.savefig(io.BytesIO())


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_a_single_alpha_is_a_point(data, axes, alpha):
    model = Ridge(LOO(alphas=[alpha])).fit(*data)
    plot_path(model, axes)
    (curve,) = lines(axes, "leave-one-out")
    assert curve.get_xdata().tolist() == [alpha]
    low, high = axes.get_xlim()
    assert low < alpha < high


def test_scores_over_many_decades_get_a_logarithmic_axis(data, axes):
    X, _ = data
    plot_path(Ridge().fit(X, X @ [1.0, 0.2, -3.0, 0.0]), axes)
    assert axes.get_yscale() == "log"


def test_scores_that_are_not_defined_leave_a_gap(axes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(10, 30))
    model = Ridge(LOO(alphas=[1e-3, 1, 10])).fit(X, X[:, 0])
    score = np.array([np.inf, 1.0, 2.0])
    object.__setattr__(model.fit_.path, "score", score)
    plot_path(model, axes)
    (curve,) = lines(axes, "leave-one-out")
    assert np.isnan(curve.get_ydata()).tolist() == [True, False, False]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_named(data, axes, rule):
    plot_path(Ridge(rule()).fit(*data), axes)
    assert axes.get_ylabel()
    assert any(word in legend(axes)[0] for word in ("leave", "cross", "GCV", "REML", "AIC", "BIC"))


def test_other_scorings_are_not_called_an_error(data, axes):
    plot_path(Ridge(KFold(scoring="neg_mean_absolute_error")).fit(*data), axes)
    assert axes.get_ylabel() == "score (smaller is better)"


@pytest.fixture(scope="module")
def several(data):
    X, y = data
    noise = np.random.default_rng(1).normal(size=len(y))
    return Ridge(alpha_per_target=True).fit(X, np.column_stack([y, 1000 * y + 3000 * noise, noise]))


def test_an_alpha_for_each_target_gives_comparable_curves(several, axes):
    plot_path(several, axes)
    for t in range(3):
        (curve,) = lines(axes, f"y{t}: ")
        score = several.path_.score[:, t]
        assert np.allclose(curve.get_ydata(), (score - score.min()) / (score.max() - score.min()))
        dot = next(
            line
            for line in axes.get_lines()
            if line.get_xdata()[0] == several.alpha_[t] and len(line.get_xdata()) == 1
        )
        assert to_hex(dot.get_color()) == to_hex(curve.get_color())
    assert not axes.collections


@pytest.mark.parametrize("target", ["y1", 1])
def test_one_of_several_targets_is_drawn_in_its_units(several, axes, target):
    plot_path(several, axes, target=target)
    (curve,) = lines(axes, "leave-one-out")
    assert np.array_equal(curve.get_ydata(), several.path_.score[:, 1])
    (chosen,) = lines(axes, "chosen")
    assert chosen.get_xdata()[0] == several.alpha_[1]


def test_many_targets_share_a_line_in_the_legend(data, axes):
    X, _ = data
    Y = X @ np.random.default_rng(2).normal(size=(4, 12)) + np.random.default_rng(3).normal(size=(60, 12))
    plot_path(Ridge(alpha_per_target=True).fit(X, Y), axes)
    assert legend(axes)[0] == "12 targets"
    assert not [text for text in legend(axes) if text.startswith(("y", "_"))]


def test_one_alpha_for_several_targets_is_one_curve(data, axes):
    X, y = data
    model = Ridge().fit(X, np.column_stack([y, -y]))
    plot_path(model, axes)
    assert len(lines(axes, "leave-one-out")) == 1
    assert axes.get_title() == "Choosing the penalty for 2 targets together"
    with pytest.raises(InputError, match="One alpha was chosen for all targets"):
        plot_path(model, target="y1")


# ------------------------------------------------------------------------------- the coefficients


def test_coefficients_are_the_ridge_solutions_times_the_deviations(data, fitted, axes):
    X, y = data
    Z, s = X - X.mean(0), X.std(0)
    plot_coefficients(fitted, axes)
    for j in range(4):
        (line,) = lines(axes, f"x{j}")
        assert np.array_equal(line.get_xdata(), fitted.path_.alphas)
        for k in (0, len(fitted.path_.alphas) // 2, -1):
            A = Z.T @ Z + fitted.path_.alphas[k] * np.diag(s**2)
            assert line.get_ydata()[k] == pytest.approx(np.linalg.solve(A, Z.T @ y)[j] * s[j], rel=1e-9)
    size = np.abs(fitted.coef_ * s)
    assert legend(axes)[:4] == [f"x{j}" for j in np.argsort(-size)]


def test_most_features_are_grey_and_counted(axes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 230))
    model = Ridge().fit(X, X[:, 3] + rng.normal(size=40))
    plot_coefficients(model, axes, most=3)
    shown = legend(axes)
    assert len(shown) == 5
    assert shown[3] == "200 smaller ones, 27 not drawn"
    assert len([line for line in axes.get_lines() if line.get_color() == "0.75"]) == 200


def test_several_targets_need_a_name(several, axes):
    with pytest.raises(InputError, match="3 targets; say which one to draw, such as target='y0'"):
        plot_coefficients(several, axes)
    plot_coefficients(several, axes, target="y2")
    (line,) = lines(axes, "x0")
    assert np.allclose(line.get_ydata(), several.path_.coef[:, 0, 2] * several.fit_.feature_scales[0])
    assert axes.get_title() == "Coefficients for y2"


def test_names_mean_nothing_to_matplotlib(axes):
    rng = np.random.default_rng(0)
    names = ["_id", "$x", "a $ and $", "two\nlines", "x" * 60]
    table = {name: rng.normal(size=30).tolist() for name in names}
    model = elltwo.fit(table | {"_y$": rng.normal(size=30).tolist()}, "_y$")
    plot_coefficients(model, axes)
    plot_path(model, axes)
    plot_coefficients(model, axes := Figure().subplots())
    assert len(legend(axes)) == 6
    assert {" _id", r"\$x", r"a \$ and \$", "two?lines", "x" * 14 + "…" + "x" * 13} < set(legend(axes))
    axes.figure.savefig(io.BytesIO())


# ------------------------------------------------------------------------------------ both of them

BOTH = pytest.mark.parametrize("plot", [plot_path, plot_coefficients], ids=lambda plot: plot.__name__)


@BOTH
def test_a_fit_and_its_estimator_give_the_same_picture(fitted, plot):
    first, second = plot(fitted, Figure().subplots()), plot(fitted.fit_, Figure().subplots())
    for one, other in zip(first.get_lines(), second.get_lines(), strict=True):
        assert np.array_equal(one.get_xydata(), other.get_xydata())


@BOTH
def test_without_axes_there_is_a_new_figure(fitted, plot):
    ax = plot(fitted)
    assert plt.gca() is ax
    plt.close(ax.figure)
    assert not plt.get_fignums()


@BOTH
def test_what_cannot_be_drawn_is_said(data, fitted, several, plot):
    with pytest.raises(InputError, match="was given its alpha, so there is no path"):
        plot(Ridge(2.0).fit(*data))
    with pytest.raises(InputError, match=r"got Ridge\. Call its fit method first"):
        plot(Ridge())
    with pytest.raises(InputError, match="target='y3' is not a target of this fit"):
        plot(several, target="y3")
    assert not plt.get_fignums()
    with pytest.raises(InputError, match="most=11 is out of range"):
        plot_coefficients(fitted, most=11)


def test_a_loaded_fit_has_scores_but_no_coefficients_along_the_path(fitted, axes, tmp_path):
    fitted.fit_.save(tmp_path / "m.safetensors")
    loaded = elltwo.load(tmp_path / "m.safetensors")
    plot_path(loaded, axes)
    (curve,) = lines(axes, "leave-one-out")
    assert np.array_equal(curve.get_ydata(), fitted.path_.score)
    with pytest.raises(InputError, match="loaded from a file, which keeps alphas, df and scores but not"):
        plot_coefficients(loaded)
    assert not plt.get_fignums()


@pytest.fixture
def without_matplotlib(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_a_missing_matplotlib_is_named_with_the_extra(fitted, without_matplotlib):
    for draw in (plot_path, plot_coefficients, lambda fit: save_figure(fit, io.BytesIO(), "png")):
        with pytest.raises(MissingPackageError, match=r"pip install 'elltwo\[plot\]'"):
            draw(fitted)


def test_matplotlib_is_loaded_only_to_draw():
    code = "import sys, elltwo.plot; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "False\n"


# ------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("format", FORMATS)
def test_a_whole_fit_in_one_file(fitted, format):
    file = io.BytesIO()
    assert save_figure(fitted, file, format) == []
    assert file.getvalue().startswith(START[format])


def test_what_the_picture_leaves_out_is_said(data, tmp_path):
    X, y = data
    five = Ridge().fit(X, np.column_stack([y] * 5))
    assert save_figure(five, io.BytesIO(), "svg") == [
        "The plot shows the coefficients of the first 4 of 5 targets."
    ]
    five.fit_.save(tmp_path / "m.safetensors")
    (remark,) = save_figure(elltwo.load(tmp_path / "m.safetensors"), io.BytesIO(), "svg")
    assert remark.startswith("The plot shows the score only")
    cjk = elltwo.fit({"価格": X[:, 0].tolist(), "y": y.tolist()}, "y")
    (remark,) = save_figure(cjk, io.BytesIO(), "png")
    assert "boxes stand for them" in remark


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="elltwo")


def test_fit_and_show_draw_a_plot(tmp_path):
    model, png, svg = tmp_path / "m.safetensors", tmp_path / "a.PNG", tmp_path / "b.svg"
    plain = run("fit", DIABETES, "-t", "progression")
    drawn = run("fit", DIABETES, "-t", "progression", "-o", model, "--plot", png)
    assert drawn.exit_code == 0
    assert drawn.stdout == plain.stdout
    assert f"Plot written to {png}" in drawn.stderr
    assert png.read_bytes().startswith(START["png"])
    shown = run("show", model, "--plot", svg)
    assert shown.stdout == plain.stdout
    assert "a model file keeps no coefficients along the path" in shown.stderr
    assert b"<svg" in svg.read_bytes()


@pytest.mark.parametrize(
    ("plot", "more", "message"),
    [
        (
            "p.gif",
            [],
            "'p.gif' does not say which format to draw. End its name with one of .png, .svg, .pdf.",
        ),
        ("plot", [], "does not say which format"),
        ("nowhere/p.png", [], "the folder 'nowhere' does not exist"),
        ("p.png", ["--alpha", "1"], "--plot has no choice to draw"),
        ("p.png", ["-o", "./p.png"], "--plot and --output both name 'p.png'"),
        ("data.svg", [], "--plot 'data.svg' would replace the input 'data.svg'"),
        ("p.png", ["--drop", "x"], "No column"),
    ],
)
def test_a_plot_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, monkeypatch, plot, more, message):
    monkeypatch.chdir(tmp_path)
    Path("data.svg").write_text("x,y\n1,2\n2,3\n3,5\n4,4\n")
    result = run("fit", "data.svg", "-t", "y", "--plot", plot, *more)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["data.svg"]


def test_a_failed_drawing_leaves_the_old_plot(tmp_path, monkeypatch):
    from elltwo import plot

    def fail(fit, file, format):
        file.write(b"half")
        raise InputError("The pen broke. Get another.")

    monkeypatch.setattr(plot, "save_figure", fail)
    (tmp_path / "p.png").write_bytes(b"old")
    assert run("fit", DIABETES, "-t", "progression", "--plot", tmp_path / "p.png").exit_code == 2
    assert (tmp_path / "p.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_command_line_names_the_extra_before_it_reads_any_data(without_matplotlib, tmp_path):
    result = run("fit", "no-such-file.csv", "-t", "y", "--plot", tmp_path / "p.png")
    assert result.exit_code == 2
    assert "pip install 'elltwo[plot]'" in result.stderr


def test_a_model_with_a_given_alpha_shows_no_plot(tmp_path):
    run("fit", DIABETES, "-t", "progression", "--alpha", "2", "-o", tmp_path / "m.safetensors")
    result = run("show", tmp_path / "m.safetensors", "--plot", tmp_path / "p.pdf")
    assert result.exit_code == 2
    assert "there is no path of alphas to draw" in result.stderr
    assert not (tmp_path / "p.pdf").exists()
