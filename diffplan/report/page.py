"""The page: one HTML file with the plans, the numbers and a slider. It asks no network and opens from disk.

page.html is the skeleton, page.css and page.js are written into it, and so is one JSON object with all that is shown.
Positions are int16: each strength has its own unit, such that nothing is clipped; -32768 marks what is not finite.
"""

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from diffplan.metrics.statistics import data_quantiles, rank_in_data
from diffplan.report import maze, style
from diffplan.report.load import Run, read_run
from diffplan.report.summary import LEVELS, MEASURES, Curve, curves, dropped, nearest

STRIDE = 2
"""Every second step of a plan is drawn."""

BUDGET = 340_000
"""Bytes of positions in the page, as base64; beyond it, fewer plans are embedded."""

EMPTY = -32768


def page(run_dir: Path | str, first: str = "guided") -> Path:
    """Writes report.html into the run directory. first: the method that the page opens with, if the run has it."""
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
    path = run.results.path / "report.html"
    path.write_text(html)
    return path


def payload(run: Run, first: str) -> dict[str, Any]:
    """Everything that the page shows, as JSON."""
    by_method = curves(run.results)
    count = embedded_plans(run)
    words = dropped(by_method)
    quantiles = {
        name: dict(zip(LEVELS.values(), _numbers(data_quantiles(values, tuple(LEVELS))), strict=True))
        for name, values in (("proxy", run.data.proxy), ("gold", run.data.gold))
    }
    return {
        "first": first if first in by_method else run.results.methods[0],
        "methods": [_method(run, curve, count) for curve in by_method.values()],
        "maze": {
            "walls": run.plans.walls.astype(int).tolist(),
            "region": _numbers(run.plans.region),
            "starts": [_numbers(start) for start in run.plans.starts[:count]],
            "frame": maze.frame(run.plans.walls),
        },
        "data": quantiles,
        "dropped": f"Batches without one finite plan, left out of the means: {words}." if words else "",
        "config": run.results.config,
    }


def embedded_plans(run: Run) -> int:
    """How many plans of each strength fit into the budget."""
    steps = sum(len(positions) * len(_steps(positions)) for positions in run.plans.positions.values())
    return max(1, min(len(run.plans.starts), BUDGET // (steps * 2 * 2 * 4 // 3)))


def _steps(positions: np.ndarray) -> np.ndarray:
    """The steps that are drawn: every second one, and the last."""
    return np.unique(np.append(np.arange(0, positions.shape[2], STRIDE), positions.shape[2] - 1))


def _method(run: Run, curve: Curve, count: int) -> dict[str, Any]:
    look = style.look(curve.method)
    band = lambda band: {field: _numbers(values) for field, values in band._asdict().items()}
    scored = {"proxy": run.data.proxy, "promised": run.data.gold}
    return {
        "name": curve.method,
        "label": look.label,
        "strength_name": curve.strength_name,
        "strengths": _numbers(curve.strengths),
        "best": curve.best,
        "seeds": curve.seeds.tolist(),
        "bands": {name: band(curve.bands[name]) for name in MEASURES},
        "ranks": {name: _numbers(rank_in_data(curve.bands[name].value, data)) for name, data in scored.items()},
        "plans": _plans(run, curve, count),
    }


def _plans(run: Run, curve: Curve, count: int) -> dict[str, Any]:
    whole = run.plans.positions[curve.method][:, :count].astype(float)
    steps = _steps(whole)
    crossing = maze.crossing(whole, run.plans.walls)
    broken = np.stack([crossing[..., a:b].any(-1) for a, b in pairwise(steps)], -1)
    integers, units = quantise(whole[:, :, steps])
    return {
        "shape": list(integers.shape[:3]),
        "rows": [nearest(curve.strengths, strength) for strength in run.plans.strengths[curve.method]],
        "positions": base64.b64encode(integers.astype("<i2").tobytes()).decode(),
        "units": _numbers(units, digits=9),
        "crossing": pack(broken),
        "leaving": [maze.leaving(positions, run.plans.walls) for positions in whole],
    }


def quantise(positions: Float[np.ndarray, "s p h 2"]) -> tuple[np.ndarray, Float[np.ndarray, "s"]]:
    """int16 positions and each strength's unit in cells: ``positions = integers * unit``, to half a unit."""
    finite = np.isfinite(positions)
    largest = np.abs(np.where(finite, positions, 0)).max((1, 2, 3))
    units = np.maximum(largest / 32767, 1e-6)
    integers = np.round(np.where(finite, positions, 0) / units[:, None, None, None])
    return np.where(finite, np.clip(integers, -32767, 32767), EMPTY).astype(np.int16), units


def pack(flags: Bool[np.ndarray, "..."]) -> str:
    """Flags as bits, first one highest, in base64."""
    return base64.b64encode(np.packbits(flags.ravel()).tobytes()).decode()


def _numbers(values: np.ndarray, digits: int = 6) -> list[float | None]:
    """Numbers for JSON, to some significant digits; null where there is none."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]
