"""The page: one HTML file with the plans, the numbers and a slider. It asks no network and opens from disk.

page.html is the skeleton, page.css and page.js are written into it, and so is one JSON object with all that is shown.
Positions are int16: each coordinate at each strength has its own unit, such that nothing is clipped; -32768 marks what
is not finite.
"""

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffplan.metrics.statistics import data_quantiles, rank_in_data
from diffplan.metrics.table import FEASIBLE
from diffplan.report import series, space, style
from diffplan.report.load import CONTROLS, Results, Run, read_run
from diffplan.report.save import directory
from diffplan.report.summary import LEVELS, Curve, curves, known, level, name_of, nearest, split, subject
from diffplan.report.sweep import recommendation
from diffplan.report.table import notes

STRIDE = 2
"""Every second step of a plan is drawn."""

BUDGET = 340_000
"""Bytes of positions in the page, as base64; beyond it, fewer plans are embedded."""

EMPTY = -32768

COLUMNS = (
    ("proxy", "proxy, sd of the data", "one"),
    ("promised", "promised return", "one"),
    ("delivered", "delivered return", "one"),
    ("infeasible", "", "percent"),
    ("path_kl", "path KL, nats", "short"),
    ("data_distance", "distance to the data", "short"),
    ("replanned", "replanned", "one"),
    ("open_loop", "open loop", "one"),
    ("inverse", "learned inverse dynamics", "one"),
    ("tracked", "tracked", "one"),
    ("seconds", "seconds a plan", "short"),
)
"""Measure, title and number format, in the order of the page; the first `CARDS` are shown large too."""
CARDS = 6


def page(run_dir: Path | str, out: Path | str | None = None, first: str | None = None) -> Path:
    """Writes report.html into the run directory, or into `out`.

    Args:
        run_dir: the run.
        out: another directory to write into.
        first: the method that the page opens with; by default the one of the figure.

    Returns:
        The path of the page.

    Raises:
        TableError: in one line, for a file or a field that is missing or damaged.
    """
    run = read_run(run_dir)
    here = Path(__file__).parent
    content = {
        "/*STYLE*/": (here / "page.css").read_text(),
        "/*RUN*/": json.dumps(payload(run, first), allow_nan=False).replace("<", "\\u003c"),
        "/*SCRIPT*/": (here / "page.js").read_text(),
    }
    html = (here / "page.html").read_text()
    for mark, text in content.items():
        html = html.replace(mark, text, 1)
    path = directory(run_dir, out) / "report.html"
    path.write_text(html)
    return path


def payload(run: Run, first: str | None) -> dict[str, Any]:
    """Everything that the page shows, as JSON."""
    by_method = curves(run.results)
    methods, controls = split(by_method)
    shown, words = subject(methods), run.results.words
    columns = columns_of(run.results, by_method)
    count = embedded_plans(run)
    measure = shown.headline if shown else "delivered"
    levels = np.array([level(controls.get(name), measure) for name in ("behaviour", "bound")])
    return {
        "first": first if first in by_method else shown.method if shown else run.results.methods[0],
        "methods": [_method(run, curve, columns, count) for curve in (*methods.values(), *controls.values())],
        "columns": columns,
        "cards": CARDS,
        "words": {"task": words.name, "unit": words.unit, "infeasible": words.infeasible, "step": words.step},
        "world": _world(run, count),
        "data": {"proxy": _quantiles(run.data.proxy), "returns": _quantiles(run.data.promised)},
        "levels": dict(zip(("behaviour", "bound"), _numbers(levels), strict=True)),
        "best": f"highest {name_of(measure)} with {FEASIBLE}",
        "notes": [*notes(run.results, by_method), *filter(None, [recommendation(run.results.path)])],
        "config": run.results.config,
    }


def columns_of(results: Results, by_method: dict[str, Curve]) -> list[tuple[str, str, str]]:
    """The columns in which there is any value; several kinds of violation have a column each."""
    words = results.words
    kinds = words.violations if len(words.violations) > 1 else {}
    violations = [(f"violations.{name}", f"plans {label}", "percent") for name, label in kinds.items()]
    infeasible = f"plans {words.infeasible}" if len(words.violations) == 1 else "infeasible plans"
    every = [(name, title or infeasible, form) for name, title, form in COLUMNS]
    return [column for column in (*every, *violations) if known(by_method.values(), column[0]).size]


def embedded_plans(run: Run) -> int:
    """How many plans of each strength fit into the budget."""
    steps = sum(len(x) * len(_steps(x)) * x.shape[-1] for x in run.plans.positions.values())
    return max(1, min(len(run.plans.starts), BUDGET // max(1, steps * 2 * 4 // 3)))


def _steps(positions: np.ndarray) -> Int[np.ndarray, "t"]:
    """The steps that are drawn: every second one, and the last."""
    return np.unique(np.append(np.arange(0, positions.shape[2], STRIDE), positions.shape[2] - 1))


def _world(run: Run, count: int) -> dict[str, Any]:
    """What plans are drawn on."""
    plans = run.plans
    band = [[_numbers(step) for step in part] for part in series.band(run.data)] if not plans.plane else None
    return {
        "plane": plans.plane,
        "labels": plans.labels,
        "solid": plans.grid.solid.astype(int).tolist() if plans.grid else None,
        "origin": _numbers(plans.grid.origin) if plans.grid else None,
        "size": plans.grid.size if plans.grid else None,
        "region": _numbers(plans.region) if plans.region is not None else None,
        "starts": [_numbers(start) for start in plans.starts[:count]],
        "limits": [_numbers(pair) for pair in space.bounds(plans, run.data)],
        "band": band,
    }


def _method(run: Run, curve: Curve, columns: list[tuple[str, str, str]], count: int) -> dict[str, Any]:
    returns = run.data.promised
    scored = {"proxy": run.data.proxy, "promised": returns, "delivered": returns}
    scored = {name: data for name, data in scored.items() if np.isfinite(data).all()}
    bands = {name: curve.bands[name]._asdict() for name, _, _ in columns if name in curve.bands}
    return {
        "name": curve.method,
        "label": style.look(curve.method).label,
        "control": curve.method in CONTROLS,
        "strength_name": curve.strength_name,
        "strengths": _numbers(curve.strengths),
        "best": curve.best,
        "feasible": curve.feasible.tolist(),
        "unconverged": curve.unconverged.tolist(),
        "scored": known([curve], curve.headline).size > 0,
        "bands": {name: {end: _numbers(values) for end, values in band.items()} for name, band in bands.items()},
        "ranks": {name: _numbers(rank_in_data(curve.value(name), data)) for name, data in scored.items()},
        "plans": _plans(run, curve, count) if curve.method in run.plans.positions else None,
    }


def _plans(run: Run, curve: Curve, count: int) -> dict[str, Any]:
    whole = run.plans.positions[curve.method][:, :count]
    steps = _steps(whole)
    segments = space.broken(run.plans, curve.method)[:, :count]
    broken = np.stack([segments[..., a:b].any(-1) for a, b in pairwise(steps)], -1)
    integers, units = quantise(whole[:, :, steps])
    limits = space.bounds(run.plans, run.data)
    return {
        "shape": list(integers.shape),
        "rows": [nearest(curve.strengths, strength) for strength in run.plans.strengths[curve.method]],
        "steps": steps.tolist(),
        "positions": base64.b64encode(integers.astype("<i2").tobytes()).decode(),
        "units": [_numbers(unit, digits=9) for unit in units],
        "broken": pack(broken),
        "leaving": [space.leaving(positions, limits) for positions in whole],
    }


def quantise(positions: Float[np.ndarray, "s p h k"]) -> tuple[Int[np.ndarray, "s p h k"], Float[np.ndarray, "s k"]]:
    """int16 positions and the unit of each coordinate: ``positions = integers * unit``, to half a unit."""
    finite = np.isfinite(positions)
    largest = np.abs(np.where(finite, positions, 0)).max((1, 2))
    units = np.maximum(largest / 32767, 1e-9)
    integers = np.round(np.where(finite, positions, 0) / units[:, None, None])
    return np.where(finite, np.clip(integers, -32767, 32767), EMPTY).astype(np.int16), units


def pack(flags: Bool[np.ndarray, "..."]) -> str:
    """Flags as bits, first one highest, in base64."""
    return base64.b64encode(np.packbits(flags.ravel()).tobytes()).decode()


def _quantiles(data: Float[np.ndarray, "n"]) -> dict[str, float | None]:
    """The levels of the data by name; none where the data have no score."""
    if not np.isfinite(data).all():
        return {}
    return dict(zip(LEVELS.values(), _numbers(data_quantiles(data, tuple(LEVELS))), strict=True))


def _numbers(values: np.ndarray, digits: int = 6) -> list[float | None]:
    """Numbers for JSON, to some significant digits; null where there is none."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
