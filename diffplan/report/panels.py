"""Parts A and B of the figure: one method against its strength; every method on the plane of proxy and return."""

from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from diffplan.metrics.statistics import data_quantiles
from diffplan.report import style
from diffplan.report.label import Named, place, stack
from diffplan.report.load import Run
from diffplan.report.scale import broken_axis, reach, strength_axis
from diffplan.report.summary import LEVELS, Band, Curve, headline, known, level, split

NULLS = ("null_noise", "null_shuffled", "null_few_steps")
CROWD = 14
"""Methods beyond which only the main ones are named on the plane."""

DASHES = {
    (0, (4, 1.5)): "– –",
    (0, (1, 1.2)): "· · ·",
    (0, (4, 1.5, 1, 1.5)): "– ·",
    (0, (4, 1.5, 1, 1.5, 1, 1.5)): "– · ·",
}
"""Line styles of the kinds of violation, as they look in a text."""

HATCH: dict[str, Any] = {"facecolor": "none", "edgecolor": style.FAINT, "hatch": "////", "linewidth": 0}
"""How strengths are marked that have not converged."""

DOTTED: dict[str, Any] = {"color": style.SOFT, "linewidth": 0.7, "linestyle": (0, (1, 1.6)), "zorder": 1}
"""How a level of the data is drawn."""


def pressure(figure: SubFigure, curve: Curve, run: Run, by_method: dict[str, Curve]) -> None:
    """Part A: proxy, returns and the fraction of infeasible plans on one axis of strength; those that are known."""
    violations, has = run.results.words.violations, lambda name: known([curve], name).size > 0
    rows = [
        (_proxy, 1.0, has("proxy")),
        (_returns, 1.45, has("promised") or has("delivered")),
        (_infeasible, 0.34 + 0.14 * (len(violations) - 1), has("infeasible") and violations),
    ]
    rows = [(panel, height) for panel, height, there in rows if there]
    margins: dict[str, float] = {"left": 0.19, "right": 0.835, "top": 0.88, "bottom": 0.11}
    grid = figure.add_gridspec(len(rows), 1, height_ratios=[height for _, height in rows], hspace=0.13, **margins)
    x = strength_axis(curve.strengths)
    panels = [figure.add_subplot(grid[i]) for i in range(len(rows))]
    for axes, (panel, _) in zip(panels, rows, strict=True):
        panel(axes, x, curve, run, by_method)
        axes.set_xlim(x[0] - 0.15, x[-1] + 0.12)
        axes.tick_params(labelbottom=axes is panels[-1], bottom=axes is panels[-1])
        if curve.is_best(curve.best):
            axes.axvline(x[curve.best], color=style.INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
        axes.axvspan(x[curve.best], x[-1] + 0.12, color=style.BROKEN, alpha=0.05, linewidth=0, zorder=0)
        _unconverged(axes, x, curve)
    side = "left" if x[curve.best] < (x[0] + x[-1]) / 2 else "right"
    at = panels[0].get_xaxis_transform()
    words = f" best: {curve.strengths[curve.best]:g} " if curve.is_best(curve.best) else " no strength is feasible "
    panels[0].text(x[curve.best], 0.97, words, ha=side, va="top", transform=at)
    broken_axis(panels[-1], curve.strengths, x)
    panels[-1].set_xlabel(curve.strength_name)


def _unconverged(axes: Axes, x: Float[np.ndarray, "s"], curve: Curve) -> None:
    """Hatches around the strengths that steps half as long change."""
    edges = np.concatenate([[x[0] - 0.15], (x[1:] + x[:-1]) / 2, [x[-1] + 0.12]])
    for k in np.flatnonzero(curve.unconverged):
        axes.axvspan(edges[k], edges[k + 1], zorder=0, **HATCH)


def _band(axes: Axes, x: Float[np.ndarray, "s"], band: Band, **look: Any) -> None:
    axes.fill_between(x, band.low, band.high, color=look["color"], alpha=0.18, linewidth=0)
    axes.plot(x, band.value, **{"linewidth": 2.2, "markersize": 5, "zorder": 4} | look)


def _finite(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "m"]:
    return values[np.isfinite(values)]


def _most(data: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m"]:
    """The data less its lowest hundredth."""
    return data[data >= np.quantile(data, 0.01)]


def _proxy(axes: Axes, x: Float[np.ndarray, "s"], curve: Curve, run: Run, by_method: dict[str, Curve]) -> None:
    data = _finite(run.data.proxy)
    _band(axes, x, curve.bands["proxy"], color=style.PROXY, marker="D")
    values = known([curve], "proxy")
    reach(axes, "y", _most(data) if data.size else values, values)
    axes.set_ylabel("proxy\n(sd of the data)")
    levels(axes, _quantiles(data))


def _returns(axes: Axes, x: Float[np.ndarray, "s"], curve: Curve, run: Run, by_method: dict[str, Curve]) -> None:
    measure, blue = curve.headline, {"color": style.RETURN, "marker": "o"}
    thin = {"linewidth": 1.2, "linestyle": (0, (4, 1.5)), "markersize": 4, "zorder": 3.5}
    if measure == "delivered":
        _band(axes, x, curve.bands["delivered"], **blue, label="delivered")
    if known([curve], "promised").size:
        look = {"markerfacecolor": "white", "label": "promised"} | (thin if measure == "delivered" else {})
        _band(axes, x, curve.bands["promised"], **blue, **look)
    if known([curve], finer := f"finer_{measure}").size:
        steps = {"marker": "x", "markersize": 4, "linestyle": (0, (1, 1.2)), "linewidth": 1.1, "zorder": 3.8}
        count = curve.value("finer_levels")[0]
        more = f"{count:.0f} levels" if np.isfinite(count) else "more training" if curve.learns else "2× levels"
        axes.plot(x, curve.value(finer), color=style.RETURN, label=f"{measure}, {more}", **steps)
    if curve.unconverged.any():
        axes.fill_between([], [], [], label="not converged", **HATCH)
    again = curve.value("replanned")
    if np.isfinite(again).any():
        axes.plot(x, again, "*", color=style.INK, markersize=11, markeredgecolor="white", zorder=8, label="replanned")
    nulls = [by_method[name] for name in NULLS if name in by_method]
    for null, label in zip(nulls, ("null reward", None, None), strict=False):
        at = np.interp(null.strengths, curve.strengths, x, left=np.nan, right=np.nan)
        look = {"color": style.look(null.method).colour, "linestyle": style.look(null.method).dash, "label": label}
        axes.plot(at, null.value(measure), linewidth=1.2, zorder=3, **look)
    data = _finite(run.data.promised)
    core = np.concatenate(
        [data, _finite(again), known([curve], finer), *(known([each], measure) for each in (curve, *nulls))]
    )
    lines = {name: level(by_method.get(name), measure) for name in ("behaviour", "bound")}
    lines = _quantiles(data) | _near(axes, lines, core)
    reach(axes, "y", np.append(core, list(lines.values())), known([curve], "promised"))
    axes.set_ylabel(run.results.words.returns().replace(" (", "\n(", 1))
    levels(axes, lines)
    axes.legend(loc="best", fontsize=8, facecolor="white", edgecolor="none", labelspacing=0.25, borderaxespad=0.2)


def _infeasible(axes: Axes, x: Float[np.ndarray, "s"], curve: Curve, run: Run, by_method: dict[str, Curve]) -> None:
    words = run.results.words
    fraction = curve.value("infeasible")
    axes.fill_between(x, 0, np.nan_to_num(fraction), color=style.SOFT, alpha=0.25, linewidth=0)
    axes.plot(x, fraction, color=style.SOFT, linewidth=1.4)
    axes.set(ylim=(0, 1.05), yticks=[0, 1], yticklabels=["0", "100 %"])
    lines = [f"fraction of plans {words.infeasible}"]
    several = words.violations if len(words.violations) > 1 else {}
    for (name, label), (dash, mark) in zip(several.items(), cycle(DASHES.items()), strict=False):
        axes.plot(x, curve.value(f"violations.{name}"), color=style.INK, linewidth=1, linestyle=dash)
        lines.append(f"{mark}  {label}")
    axes.text(0.015, 0.9, "\n".join(lines), fontsize=8, color=style.SOFT, va="top", transform=axes.transAxes)


def _quantiles(data: Float[np.ndarray, "n"]) -> dict[str, float]:
    values = data_quantiles(data, tuple(LEVELS)).tolist() if data.size else []
    return {f"data {name}": value for name, value in zip(LEVELS.values(), values, strict=False)}


def _near(axes: Axes, lines: dict[str, float], core: Float[np.ndarray, "n"]) -> dict[str, float]:
    """The lines that are not far above all other values; a note in the corner names one that is."""
    top = core.max(initial=-np.inf) + 3 * (np.ptp(core) if core.size else 0)
    for name, value in lines.items():
        if value > top > -np.inf:
            corner = {"ha": "right", "va": "top", "fontsize": 8.5, "transform": axes.transAxes}
            axes.text(0.99, 0.98, f"{name}: {style.plain(value)} ↑", **corner)
    return {name: value for name, value in lines.items() if value <= top or (top == -np.inf and np.isfinite(value))}


def levels(axes: Axes, lines: dict[str, float]) -> None:
    """Thin lines at some values, named in the right margin. The limits and the scale must be final."""
    lines = dict(sorted(lines.items(), key=lambda item: item[1]))
    at, to_axes = axes.transAxes, axes.transData + axes.transAxes.inverted()
    heights = np.array([to_axes.transform((0, value))[1] for value in lines.values()])
    tall = axes.get_window_extent().height / axes.figure.dpi
    for (name, value), height, spot in zip(lines.items(), heights, stack(heights, 0.135 / tall), strict=True):
        data = name.startswith("data ")
        axes.axhline(value, **DOTTED if data else DOTTED | {"color": style.INK, "linestyle": style.look(name).dash})
        axes.plot([1, 1.025], [height, spot], color=style.SOFT, linewidth=0.6, transform=at, clip_on=False)
        axes.text(1.035, spot, name, color=style.SOFT if data else style.INK, fontsize=8, va="center", transform=at)


def plane(axes: Axes, run: Run, by_method: dict[str, Curve]) -> None:
    """Part B: return against proxy, a method a line over its strengths, single windows of the data behind.

    Where returns are delivered, faint open markers show what the same plans promised.
    """
    measure, words = vertical(by_method), run.results.words
    methods = split(by_method)[0]
    drawn = {name: curve for name, curve in by_method.items() if name != "bound" and len(_points(curve, measure))}
    main = [curve for curve in drawn.values() if style.look(curve.method).main]
    others = [curve for curve in drawn.values() if not style.look(curve.method).main]
    proxy, promised = _finite(run.data.proxy), _finite(run.data.promised)
    returns = promised if measure != "data_distance" else promised[:0]
    soft = {"color": style.SOFT, "fontsize": 8.5}
    if returns.size and proxy.size:
        dots = {"s": 5, "color": style.FAINT, "alpha": 0.55, "linewidth": 0, "rasterized": True}
        axes.scatter(proxy, returns, zorder=1, **dots)
        axes.text(0.005, 0.012, " data windows", va="bottom", transform=axes.transAxes, **soft)
    for curve in drawn.values():
        _method(axes, curve, measure, len(methods) > CROWD)
    values = known(drawn.values(), "proxy")
    reach(axes, "x", _most(proxy) if proxy.size else values, values)
    core = np.concatenate([returns, known(drawn.values(), measure)])
    bound = np.nan if measure == "data_distance" else level(by_method.get("bound"), measure)
    bounds = list(_near(axes, {"bound": bound}, core).values())
    reach(axes, "y", np.append(core, bounds), known(drawn.values(), "promised") if measure == "delivered" else core)
    far = "; logarithmic beyond the data" if axes.get_xscale() == "symlog" else ""
    axes.set_xlabel(f"proxy: learned reward (sd of the data{far})")
    axes.set_ylabel("distance to the data" if measure == "data_distance" else words.returns(measure))
    if proxy.size:
        axes.axvline(proxy.max(), **DOTTED)
        at = axes.get_xaxis_transform()
        axes.text(proxy.max(), 0.985, "best proxy of the data ", transform=at, va="top", ha="right", **soft)
    for bound in bounds:
        axes.axhline(bound, color=style.INK, linewidth=0.9, zorder=1)
        axes.text(0.995, bound, "bound", ha="right", va="bottom", fontsize=8.5, transform=axes.get_yaxis_transform())
    for curve in main:
        _arrows(axes, curve, measure)
    named = main + others * (len(methods) <= CROWD)
    place(axes, [_named(curve, measure) for curve in named], [text.get_window_extent() for text in axes.texts])


def vertical(by_method: dict[str, Curve]) -> str:
    """What stands against proxy on the plane: the headline, or the distance to the data where no return is known."""
    measure = headline(by_method)
    return "data_distance" if measure == "proxy" else measure


def _points(curve: Curve, measure: str) -> Float[np.ndarray, "n 2"]:
    points = np.stack([curve.value("proxy"), curve.value(measure)], -1)
    return points[np.isfinite(points).all(-1)]


def _method(axes: Axes, curve: Curve, measure: str, crowd: bool) -> None:
    look = style.look(curve.method)
    x, y = _points(curve, measure).T
    width, size = (2.1, 6.0) if look.main else (1.1, 4.5)
    axes.plot(x, y, color=look.colour, linestyle=look.dash, linewidth=width, zorder=5 if look.main else 3)
    size, order = (15, 11) if curve.method == "prior" else (size, 9 if look.main else 7)
    marks = axes.plot(x, y, color=look.colour, linestyle="", marker=look.marker, markersize=size, zorder=order)[0]
    if look.marker not in "12":
        marks.set(markeredgecolor="white", markeredgewidth=0.5)
    if measure == "delivered" and (look.main or not crowd) and curve.method not in ("prior", *NULLS):
        ends = np.stack([curve.value(name) for name in ("proxy", measure, "promised")])
        x, low, high = ends[:, np.isfinite(ends).all(0)]
        faint = {"color": look.colour, "alpha": 0.4, "zorder": 2}
        axes.vlines(x, low, high, linewidth=0.6, **faint)
        axes.plot(x, high, look.marker, markersize=3.5, markerfacecolor="white", markeredgewidth=0.7, **faint)


def _arrows(axes: Axes, curve: Curve, measure: str) -> None:
    """Which way strength grows: a head on the longest stroke before the best strength, and on the longest after it."""
    points = axes.transData.transform(np.stack([curve.value("proxy"), curve.value(measure)], -1))
    lengths = np.nan_to_num(np.hypot(*np.diff(points, axis=0).T))
    for part in (slice(0, curve.best), slice(curve.best, None)):
        if lengths[part].size and lengths[part].max() > 40:
            k = (part.start or 0) + int(lengths[part].argmax())
            along = (points[k + 1] - points[k]) / lengths[k]
            middle = (points[k + 1] + points[k]) / 2
            ends = axes.transData.inverted().transform([middle - 9 * along, middle + 6 * along])
            head = {"arrowstyle": "-|>,head_length=0.55,head_width=0.3", "color": style.look(curve.method).colour}
            axes.annotate("", xy=ends[1], xytext=ends[0], arrowprops=head | {"shrinkA": 0, "shrinkB": 0}, zorder=8)


def _named(curve: Curve, measure: str) -> Named:
    look, points = style.look(curve.method), _points(curve, measure)
    return Named(look.label, look.colour, look.main, points, prefer=int(points[:, 1].argmax()))
