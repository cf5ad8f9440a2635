"""The figures: what is feasible in a plane, what is drawn of every kind of run, and labels that can be read."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from diffplan.report import axes, figure, load, scale, space, summary
from diffplan.report.save import save
from tests.report_runs import KINDS, SOLID, methods_of, write_run
from tests.test_report import rearrange, rewrite


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run of each kind; only read them."""
    directory = tmp_path_factory.mktemp("runs")
    return {kind: write_run(directory / kind, kind) for kind in KINDS}


@pytest.mark.parametrize(("origin", "size"), [((-0.7, -0.7), 1.0), ((0.0, 0.0), 1.0), ((10.0, -4.0), 0.5)])
def test_crossing_by_hand_in_the_u(origin, size):
    """The same walks in cells of another place and size."""
    grid = load.Grid(SOLID, np.array(origin), size)
    corner = [(1.5, 1.5), (1.5, 3.5), (3.5, 3.5), (3.5, 1.5)]  # along the corridor, from cell centre to cell centre
    through = [(1.5, 1.5), (3.5, 1.5), (3.5, 1.6), (9.7, 1.6)]  # through solid cells; within a cell; out of all cells
    missing = [(1.5, 1.5), (np.nan, 1.5), (1.5, 1.5), (1.5, 1.6)]
    result = space.crossing(np.array([corner, through, missing]) * size + origin, grid)
    assert result.tolist() == [[False, False, False], [True, False, True], [True, True, False]]
    edges = np.array([(1.001, 1.5), (0.999, 1.5), (1.999, 2.5), (2.001, 2.5)]) * size + origin
    assert space.is_solid(edges, grid).tolist() == [False, True, False, True]


def test_plans_that_leave_the_picture_are_counted(runs):
    run = load.read_run(runs["plane"])
    limits = space.bounds(run.plans, run.data)
    assert (limits[:, 0] < run.data.positions.min((0, 1))).all()
    assert (limits[:, 1] > run.data.positions.max((0, 1))).all()
    inside = np.broadcast_to(limits.mean(1), (3, 5, 2)).copy()
    assert space.leaving(inside, limits) == 0
    inside[0, 2, 1], inside[1, 4] = limits[1, 1] + 1, np.nan
    assert space.leaving(inside, limits) == 2


def test_the_file_decides_what_is_broken_and_without_it_the_cells(runs):
    cells, plane, series = (load.read_run(runs[kind]).plans for kind in ("cells", "plane", "series"))
    assert space.broken(cells, "guided")[0].mean() < 0.05 < 0.2 < space.broken(cells, "guided")[-1].mean()
    assert (space.broken(plane, "ascent") == plane.broken["ascent"]).all()
    unknown = series._replace(broken={})
    assert not space.broken(unknown, "ascent").any()


def words_of(drawn: Figure) -> str:
    """All texts of a figure."""
    texts = [text.get_text() for text in drawn.findobj(lambda artist: hasattr(artist, "get_text"))]
    return "\n".join(texts)


def labels_do_not_overlap(drawn: Figure, least: int) -> None:
    """The names on the plane of proxy and return do not cover one another."""
    for plane in (each for each in drawn.get_axes() if each.get_xlabel().startswith("proxy")):
        boxes = [text.get_window_extent() for text in plane.texts if text.get_text()]
        assert len(boxes) >= least
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_is_drawn_in_the_words_of_its_task(runs, kind):
    run = load.read_run(runs[kind])
    drawn = figure.compose(run)
    drawn.canvas.draw()
    words = " ".join(words_of(drawn).split())  # lines are wrapped
    for line in run.results.left_out:
        assert line in words
    assert ("Delivered:" in words) == (kind not in ("offline", "unrewarded"))
    assert (run.results.words.returns("delivered") in words) == (kind not in ("offline", "unrewarded"))
    assert ("bound" in words) == ("bound" in methods_of(kind))
    for label in run.plans.labels if run.plans.grid is None else ():
        assert label in words
    for words_of_violation in run.results.words.violations.values():
        assert words_of_violation in words
    labels_do_not_overlap(drawn, len(methods_of(kind)) - 1)
    assert ("7 of gradient ascent" in words) == (kind == "few")


@pytest.mark.parametrize(
    "methods", [("guided", "best_of_n"), ("prior", "mppi"), ("guided",), ("ascent",), ("bound", "prior")]
)
def test_any_choice_of_methods_is_drawn(runs, tmp_path, methods):
    path = Path(shutil.copytree(runs["cells"], tmp_path / "run"))
    rewrite(path, lambda rows: [row for row in rows if row["method"] in methods])
    assert figure.compose(load.read_run(path)).get_axes()


def test_figures_are_small_files(runs, tmp_path):
    for png, pdf in (figure.frontier(runs["series"], tmp_path), axes.axes_figure(runs["plane"], tmp_path)):
        assert png.read_bytes().startswith(b"\x89PNG") and 20_000 < png.stat().st_size < 1_000_000
        assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size < 2_000_000


def test_without_a_picture_the_numbers_are_drawn(runs, tmp_path):
    path = Path(shutil.copytree(runs["cells"], tmp_path / "run"))
    rearrange(path, "plans.npz", lambda arrays: {"starts": arrays["starts"]})
    drawn = figure.compose(load.read_run(path))
    assert "Plans" not in words_of(drawn) and "guidance scale" in words_of(drawn)


def test_returns_that_run_away_leave_the_others_readable(runs, tmp_path):
    """A promise of a million must not press what is delivered onto the axis."""
    path = Path(shutil.copytree(runs["cells"], tmp_path / "run"))
    far = lambda row: row | ({"promised": 1e6} if row["method"] == "guided" and row["strength"] == "100.0" else {})
    rewrite(path, lambda rows: [far(row) for row in rows])
    drawn = figure.compose(load.read_run(path))
    drawn.canvas.draw()
    returns = next(each for each in drawn.get_axes() if each.get_ylabel().startswith("return"))
    heights = returns.transAxes.inverted().transform(returns.transData.transform([(0, 0), (0, 27), (0, 1e6)]))[:, 1]
    assert heights[1] - heights[0] > 0.12 and heights[2] <= 1


def test_a_scale_is_linear_unless_values_run_away():
    for core, beyond, expected in (
        ([-3, 0, 3], [4.0], "linear"),
        ([-900, -100], [-50], "linear"),
        ([0, 3], [50.0], "symlog"),
    ):
        each = Figure().add_subplot()
        scale.reach(each, "y", np.array(core, float), np.array(beyond, float))
        low, high = each.get_ylim()
        assert each.get_yscale() == expected and low <= min(core) and high >= max(*core, *beyond)


def test_no_method_is_left_off_the_axis_of_strength(runs, tmp_path):
    result = summary.split(summary.curves(load.read_results(runs["cells"])))[0]
    for curve in result.values():
        assert np.isfinite(axes.where(curve, 1)).all() and np.isfinite(axes.where(curve, 2)).all()
    assert np.isnan(axes.where(result["ascent"], 0)).all()
    np.testing.assert_allclose(axes.relative(np.array([0, 1, 10, 100.0])), [0, 0.1, 0.55, 1])
    assert save(tmp_path / "a.png", lambda: Figure()) == (tmp_path / "a.png",)
