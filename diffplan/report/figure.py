"""The frontier: what pushing a plan towards a learned reward does to the plan, in one picture.

Its three parts, of which those are drawn that have something to show:

    A  one method against its strength: proxy, promised and delivered return, fraction of infeasible plans
    B  every method on the plane of proxy and delivered return, the data behind
    C  the plans themselves, from the weakest to the largest strength
"""

from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import SubplotSpec

from diffplan.metrics.table import TableError
from diffplan.report import panels, series, space, style
from diffplan.report.load import Run, read_run
from diffplan.report.save import directory, save
from diffplan.report.summary import (
    Curve,
    curves,
    delivery,
    dropped,
    evenly_chosen,
    known,
    nearest,
    split,
    subject,
    unconverged,
)

COLUMNS = 5
"""Strengths drawn in a row of part C."""
WILD = 3
"""Plans in a picture where most of their segments are infeasible: more would hide one another."""

WIDE, SHORT, LONG = 165, 24, 55
"""Characters in a line of notes, in words that stand above one picture, and above one part."""


def frontier(run_dir: Path | str, out: Path | str | None = None) -> tuple[Path, ...]:
    """Writes frontier.png and frontier.pdf into the run directory, or into `out`.

    Raises:
        TableError: in one line, for a file or a field that is missing or damaged.
    """
    run = read_run(run_dir)
    return save(directory(run_dir, out) / "frontier.png", lambda: compose(run), pdf=True)


def compose(run: Run) -> Figure:
    """The whole figure, 11 inches wide."""
    by_method = curves(run.results)
    methods, _ = split(by_method)
    shown = subject(methods)
    alone = shown if shown is not None and len(shown.strengths) > 1 and known([shown], shown.headline).size else None
    plane = known(by_method.values(), "proxy").size > 0
    rows = rows_of(run, methods, shown)
    tall = 2.75 if run.plans.plane else 0.95 * len(run.plans.labels) + 1.1
    left_out = f"Left out: {'; '.join(run.results.left_out)}." if run.results.left_out else ""
    not_yet = unconverged([alone] if alone is not None else [], "Not converged, hatched")
    lines = (delivery(run.results), not_yet, dropped(by_method), left_out)
    notes = [part for line in lines for part in wrap(line, WIDE)]
    heights = {
        "top": 5.35 * (alone is not None or plane),
        "plans": tall * len(rows) + 0.5 * bool(rows),
        "notes": (0.12 + 0.2 * len(notes)) * bool(notes),
    }
    heights = {name: height for name, height in heights.items() if height}
    if not heights:
        raise TableError(f"{run.results.path}: no method has a score or a plan, there is nothing to draw")
    figure = Figure(figsize=(11, sum(heights.values())))
    cells = figure.subfigures(len(heights), 1, height_ratios=list(heights.values()), squeeze=False)[:, 0]
    parts = dict(zip(heights, cells, strict=True))
    if "top" in parts:
        _top(parts["top"], run, by_method, alone, plane)
    if rows:
        _gallery(parts["plans"], run, rows, heights["plans"])
    for i, line in enumerate(notes):
        y = 1 - (0.1 + 0.2 * i) / heights["notes"]
        parts["notes"].text(0.02, y, line, fontsize=8.5, color=style.SOFT, va="center")
    return figure


def rows_of(run: Run, methods: dict[str, Curve], shown: Curve | None) -> list[Curve]:
    """The methods whose plans are drawn: the one of part A, and in a plane gradient ascent or another family beside."""
    drawn = {name for name, x in run.plans.positions.items() if np.isfinite(x).any()}
    able = [curve for name, curve in methods.items() if name in drawn]
    first = [shown] if shown and shown.method in drawn else able[:1]
    others = [each for each in able for one in first if each.family != one.family and len(each.strengths) > 1]
    return first + sorted(others, key=lambda each: each.method != "ascent")[: int(run.plans.plane)]


def _top(figure: SubFigure, run: Run, by_method: dict[str, Curve], alone: Curve | None, plane: bool) -> None:
    """Parts A and B, side by side if there are both."""
    widths = [1.0] * (alone is not None) + [1.12] * plane
    places = list(figure.subfigures(1, len(widths), width_ratios=widths, squeeze=False)[0])
    if alone is not None:
        place = places.pop(0)
        panels.pressure(place, alone, run, by_method)
        _title(place, "A", _finding(alone))
    if plane:
        axes = places[0].add_axes((0.125, 0.11, 0.855, 0.77))
        panels.plane(axes, run, by_method)
        measure = panels.vertical(by_method)
        words = "distance to the data" if measure == "data_distance" else f"{measure} return"
        _title(places[0], "B", f"Every method: {words} against proxy")
        if measure == "delivered":
            places[0].text(0.98, 0.94, "faint, open: promised", fontsize=9, color=style.SOFT, ha="right", va="center")


def _finding(curve: Curve) -> str:
    """What part A shows, if it shows it."""
    best, proxy, band = curve.best, curve.value("proxy"), curve.bands[curve.headline]
    least = band.low[best] if np.isfinite(band.low[best]) else band.value[best]
    label = style.look(curve.method).label
    if curve.headline != "proxy" and proxy[-1] > proxy[best] and band.value[-1] < least:
        words = f"{label}: proxy keeps rising, {curve.headline} return falls"
        return words if len(words) <= LONG else f"{label}: {curve.headline} return falls"
    return f"{label} against its strength"


def _title(figure: SubFigure, letter: str, words: str, height: float = 0.94) -> None:
    figure.text(0.02, height, letter, fontsize=14, fontweight="bold", va="center")
    figure.text(0.02 + 0.028 * 11 / figure.bbox.width * figure.dpi, height, words, fontsize=11.5, va="center")


def _gallery(figure: SubFigure, run: Run, rows: list[Curve], tall: float) -> None:
    """Part C: a row for each method, a picture for each strength. tall: inches."""
    plain = run.plans.plane and run.plans.grid is None
    margins: dict[str, float] = {"left": 0.05 if run.plans.grid is not None else 0.075, "right": 0.985}
    margins |= {"top": 1 - 0.86 / tall, "bottom": (0.3 if run.plans.grid is not None else 0.66) / tall}
    gaps = {"hspace": 0.75 if plain else 0.42, "wspace": 0.06 if run.plans.plane else 0.12}
    most = max(len(run.plans.strengths[curve.method]) for curve in rows)
    columns = COLUMNS if run.plans.plane else min(COLUMNS, most)
    grid = figure.add_gridspec(len(rows), columns, **gaps, **margins)
    words = "Plans, from the weakest to the largest strength" if most > 1 else "Plans"
    _title(figure, "C", words, height=1 - 0.2 / tall)
    for r, curve in enumerate(rows):
        strengths = run.plans.strengths[curve.method]
        best = int(np.abs(strengths - curve.strengths[curve.best]).argmin())
        for c, k in enumerate(evenly_chosen(len(strengths), best, columns)):
            axes = _picture(figure, grid[r, c], run, curve, k)
            _caption(axes[0], run, curve, k)
            if c == 0:
                look, aside = style.look(curve.method), -10 if run.plans.grid is not None else -44
                bold = {"rotation": 90, "va": "center", "ha": "right", "fontsize": 11, "fontweight": "bold"}
                middle = (0, 1 - 0.53 * len(axes))
                _beside(axes[0], middle, (aside, 0), look.label, color=look.colour, **bold)
    _key(figure, run, 1 - 0.2 / tall)


def _picture(figure: SubFigure, cell: SubplotSpec, run: Run, curve: Curve, k: int) -> list[Axes]:
    """The plans of one strength; returns the axes of the picture, from top to bottom."""
    plans, limits = run.plans, space.bounds(run.plans, run.data)
    broken, positions = space.broken(plans, curve.method)[k], plans.positions[curve.method][k]
    leaving = space.leaving(positions, limits)
    words = f"{leaving} of {len(positions)} plans leave the picture" if leaving else ""
    if broken.mean() > 0.25:
        broken, positions = broken[:WILD], positions[:WILD]
    first = cell.colspan.start == 0
    if plans.plane:
        axes = figure.add_subplot(cell)
        space.draw_plane(axes, plans, limits)
        space.draw_lines(axes, space.turned(positions, plans), broken)
        if plans.grid is None:
            axes.tick_params(labelsize=7.5, labelleft=first)
            axes.set_ylabel(plans.labels[1] if first else "", fontsize=8.5)
            words = f"{plans.labels[0]}\n{words}"
        axes.set_xlabel(words, fontsize=8.5)
        return [axes]
    inner = cell.subgridspec(len(plans.labels), 1, hspace=0.12)
    rows = [figure.add_subplot(inner[i]) for i in range(len(plans.labels))]
    series.draw_series(rows, positions, broken, series.band(run.data), limits)
    for axes, label in zip(rows, plans.labels, strict=True):
        name, _, unit = label.partition(" [")
        lines = [*wrap(name, 14), *([f"[{unit}"] if unit else [])]
        axes.set_ylabel("\n".join(lines) if first else "", fontsize=8)
        axes.tick_params(labelleft=first)
    rows[-1].set_xlabel(f"{run.results.words.step}\n{words}", fontsize=8.5)
    return rows


def _caption(axes: Axes, run: Run, curve: Curve, k: int) -> None:
    """Strength, returns and infeasible plans of a picture; k: index of its strength among those drawn."""
    k = nearest(curve.strengths, float(run.plans.strengths[curve.method][k]))
    best = " (best)" if curve.is_best(k) and len(curve.strengths) > 1 else ""
    strength = f"{curve.strength_name} {curve.strengths[k]:g}{best}" if len(curve.strengths) > 1 else ""
    kinds = [name for name in ("promised", "delivered") if known([curve], name).size] or ["proxy"]
    scores = [f"{kind} {style.plain(curve.value(kind)[k])}" for kind in kinds if known([curve], kind).size]
    words, infeasible = run.results.words, curve.value("infeasible")[k]
    what = words.infeasible if len(words.infeasible) <= SHORT else "infeasible"
    below = f"{style.percent(infeasible)} {what}" if words.violations and np.isfinite(infeasible) else ""
    soft = {"color": style.SOFT, "ha": "center"}
    _beside(axes, (0.5, 1), (0, 28), strength, ha="center", fontweight="bold" if best else "normal")
    _beside(axes, (0.5, 1), (0, 16), ", ".join(scores), fontsize=8.5, **soft)
    _beside(axes, (0.5, 1), (0, 5), below, fontsize=8.5, **soft)


def _beside(axes: Axes, at: tuple[float, float], shift: tuple[float, float], words: str, **look: Any) -> None:
    """Words at a place of the axes (fractions), shifted by some points."""
    axes.annotate(words, at, shift, xycoords="axes fraction", textcoords="offset points", annotation_clip=False, **look)


def _key(figure: SubFigure, run: Run, height: float) -> None:
    """What the strokes of part C mean, on the line of its title."""
    axes = figure.add_axes((0.5, height - 0.025, 0.485, 0.05))
    axes.set(xlim=(0, 100), ylim=(0, 1))
    axes.axis("off")
    broken = bool(run.plans.broken) or run.plans.grid is not None
    entries = {"start": run.plans.plane, "target": run.plans.region is not None, "data, 5 to 95 %": not run.plans.plane}
    entries |= {"plan": True, "infeasible part of a plan": broken}
    x = 100.0
    for words in reversed([words for words, there in entries.items() if there]):
        x -= 1.55 * len(words)
        axes.text(x, 0.46, words, fontsize=9, va="center", color=style.SOFT)
        if words == "start":
            axes.plot(x - 2, 0.5, marker="o", markersize=3, color=style.INK)
        elif words == "target":
            axes.scatter(x - 2.5, 0.5, s=90, facecolor="none", edgecolor=style.INK, linestyle=(0, (2.6, 1.5)))
        else:
            colour = style.SOUND if words == "plan" else style.WALL if words.startswith("data") else style.BROKEN
            axes.plot([x - 6.5, x - 2], [0.5, 0.5], color=colour, linewidth=8 if words.startswith("data") else 1.6)
        x -= 9
