"""The sweep that a guidance scale was chosen from: a table in the terminal, and one picture.

Both are drawn from ``sweep.csv`` and ``scale.json`` of the directory that a call of `diffplan tune` filled.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from diffplan.metrics import table
from diffplan.metrics.statistics import lower_limit, mean_interval
from diffplan.report import style
from diffplan.report.save import save
from diffplan.report.scale import broken_axis, strength_axis
from diffplan.report.summary import Band

RETURNS = ("promised", "delivered", "replanned", "tracked")
LOOKS = {
    "promised": (style.PROXY, "--"),
    "delivered": (style.RETURN, "-"),
    "replanned": ("#3a8f6a", "-."),
    "tracked": ("#9b6bb3", ":"),
}


class Sweep(NamedTuple):
    """A sweep as it was kept. bands: of every known measure. limit: lower, of the fraction of feasible plans."""

    scales: Float[np.ndarray, "s"]
    bands: dict[str, Band]
    limit: Float[np.ndarray, "s"]
    content: dict[str, Any]

    @property
    def needed(self) -> float:
        """The limit that feasible scales reach (135)."""
        return table.LEAST * float(self.content["behaviour_feasible"])

    @property
    def at(self) -> int:
        """Index of the recommended scale."""
        return int(np.abs(self.scales - self.content["scale"]).argmin())


def read(directory: Path) -> Sweep:
    """Read what a call of `diffplan tune` kept.

    Raises:
        TableError: naming the file and the field that is missing or damaged.
    """
    rows = table.read(directory / "sweep.csv", ("strength", "feasible", "plans"))
    scales = np.unique(rows["strength"])
    cells = [rows["strength"] == scale for scale in scales]
    names = [name for name in (*RETURNS, "proxy", "path_kl", "feasible") if np.isfinite(rows.get(name, np.nan)).any()]
    bands = {name: Band(*np.array([mean_interval(rows[name][cell])[:3] for cell in cells]).T) for name in names}
    plans = np.array([rows["plans"][cell].sum() for cell in cells])
    content = json.loads((directory / "scale.json").read_text())
    return Sweep(scales, bands, lower_limit(bands["feasible"].value, plans), content)


def show(directory: Path, console: Console | None = None) -> None:
    """Print the sweep, a scale a line."""
    sweep = read(directory)
    columns = {name: style.percent if name == "feasible" else style.plain for name in sweep.bands}
    columns |= {name: style.short for name in ("path_kl",) if name in sweep.bands}
    shown = Table("scale", *(name.replace("path_kl", "path KL") for name in columns), box=SIMPLE_HEAD, show_edge=False)
    for column in shown.columns:
        column.justify = "right"
    for k, scale in enumerate(sweep.scales):
        cells = []
        for name, form in columns.items():
            band = sweep.bands[name]
            half = (band.high[k] - band.low[k]) / 2
            known = name in RETURNS and bool(np.isfinite(half))
            cells.append(form(band.value[k]) + f" ± {style.plain(half)}" * known)
        feasible = sweep.limit[k] >= sweep.needed
        shown.add_row(f"{'★ ' * (k == sweep.at)}{scale:g}{' †' * (not feasible)}", *cells)
    console = console or Console()
    console.print(shown)
    console.print(f"★ recommended: {sweep.content['reason']}. † not feasible.", style="dim", highlight=False)
    if words := validation(sweep.content):
        console.print(words, style="dim", highlight=False)


def validation(content: dict[str, Any]) -> str:
    """What the recommended scale gained on other seeds; empty where nothing was validated."""
    about = content.get("validation")
    if not about:
        return ""
    gain = f"{about['gain']:+.2g} (95 % interval {about['low']:.2g} to {about['high']:.2g})"
    of = f"On {about['seeds']} other seeds the {content['objective']} return is {about['return']:.3g}"
    return f"{of}, {gain} against unguided plans."


def recommendation(run_dir: Path) -> str:
    """What the last call of `diffplan tune` on a run chose, and why; empty where there was none.

    Raises:
        TableError: if ``scale.json`` is damaged.
    """
    path = run_dir / "scale.json"
    if not path.exists():
        return ""
    try:
        content = json.loads(path.read_text())
        method, scale, reason = (content[name] for name in ("method", "scale", "reason"))
    except (ValueError, KeyError, TypeError) as error:
        raise table.TableError(f"{path}: is damaged ({type(error).__name__}: {error})") from None
    chosen = "no scale" if scale is None else f"scale {scale:g}{beside(content)}"
    return f"diffplan tune: {style.look(method).label}, {chosen}: {reason}. {validation(content)}".rstrip()


def beside(content: dict[str, Any]) -> str:
    """What was tuned with the scale."""
    if "candidates" not in content:
        return ""
    return f", {content['candidates']} candidates, {content['prior']:g} of the prior"


def draw(directory: Path) -> tuple[Path, ...]:
    """Write ``sweep.png`` beside the files.

    Raises:
        TableError: naming the file and the field that is missing or damaged.
    """
    sweep = read(directory)
    return save(directory / "sweep.png", lambda: compose(sweep))


def compose(sweep: Sweep) -> Figure:
    """Returns, feasible fraction and path KL against the scale, 7 inches wide."""
    parts = [_returns, _feasible, *([_pressure] if "path_kl" in sweep.bands else [])]
    heights = [2.0, 0.8, 0.8][: len(parts)]
    figure = Figure(figsize=(7, 1.1 + 1.45 * sum(heights)))
    tall = figure.get_figheight()
    margins = {"left": 0.13, "right": 0.8, "top": 1 - 0.5 / tall, "bottom": 0.55 / tall}
    grid = figure.add_gridspec(len(parts), 1, height_ratios=heights, hspace=0.14, **margins)
    x = strength_axis(sweep.scales)
    panels = [figure.add_subplot(grid[i]) for i in range(len(parts))]
    for axes, part in zip(panels, parts, strict=True):
        part(axes, x, sweep)
        axes.axvline(x[sweep.at], color=style.INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        axes.set_xlim(x[0] - 0.15, x[-1] + 0.12)
        axes.tick_params(labelbottom=axes is panels[-1], bottom=axes is panels[-1])
    broken_axis(panels[-1], sweep.scales, x)
    panels[-1].set_xlabel("guidance scale")
    label = style.look(str(sweep.content["method"])).label
    chosen = f"{label}: scale {sweep.content['scale']:g}{beside(sweep.content)}"
    words = f"{chosen} for the {sweep.content['objective']} return"
    figure.text(0.13, 1 - 0.22 / tall, words, fontsize=11.5, va="center")
    return figure


def _line(axes: Axes, x: Float[np.ndarray, "s"], band: Band, colour: str, dash: str, label: str) -> None:
    axes.fill_between(x, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, band.value, color=colour, linestyle=dash, linewidth=1.8, marker="o", markersize=3.5, label=label)


def _returns(axes: Axes, x: Float[np.ndarray, "s"], sweep: Sweep) -> None:
    for name in RETURNS:
        if name in sweep.bands:
            _line(axes, x, sweep.bands[name], *LOOKS[name], name)
    axes.set_ylabel(f"return ({sweep.content['unit']})")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, edgecolor="none", borderaxespad=0)


def _feasible(axes: Axes, x: Float[np.ndarray, "s"], sweep: Sweep) -> None:
    axes.plot(x, sweep.bands["feasible"].value, color=style.INK, linewidth=1.6, marker="o", markersize=3.5)
    axes.plot(x, sweep.limit, color=style.SOFT, linewidth=0.9, linestyle=(0, (1, 1.2)))
    axes.axhline(sweep.needed, color=style.BROKEN, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.text(x[-1] + 0.16, sweep.needed, "limit must\nbe above", fontsize=8, color=style.BROKEN, va="center")
    axes.set(ylim=(-0.03, 1.03), ylabel="feasible")
    axes.set_yticks([0, 0.5, 1])


def _pressure(axes: Axes, x: Float[np.ndarray, "s"], sweep: Sweep) -> None:
    axes.plot(x, sweep.bands["path_kl"].value, color=style.INK, linewidth=1.6, marker="o", markersize=3.5)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylabel("path KL\n[nats]")
