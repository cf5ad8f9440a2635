"""Parts A and B of the figure: one method against its strength; every method on the plane of gold and proxy."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from diffplan.metrics.statistics import data_quantiles
from diffplan.report import style
from diffplan.report.label import Named, place, stack
from diffplan.report.load import Data
from diffplan.report.summary import LEVELS, Band, Curve


def pressure(proxy: Axes, gold: Axes, walls: Axes, curve: Curve, data: Data) -> None:
    """Part A: proxy, gold and the fraction of plans that cross a wall, on one axis of strength."""
    x = strength_axis(curve.strengths)
    _curve(proxy, x, curve.bands["proxy"], style.PROXY, "D")
    _curve(gold, x, curve.bands["promised"], style.GOLD, "o")
    _executed(gold, x, curve)
    linear = 1.15 * float(data.proxy.max())
    top = float(np.nanmax(curve.bands["proxy"].value))
    proxy.set_yscale("symlog", linthresh=linear, linscale=1.6)
    proxy.set_ylim(min(-0.5, float(np.nanmin(curve.bands["proxy"].value))), top * 2)
    ticks = [t for t in (0, 2, 10, 100, 1000, 10000) if t <= top * 2 and not linear < t < 1.3 * linear]
    proxy.set_yticks(ticks, [f"{t:g}" for t in ticks])
    proxy.minorticks_off()
    high = max(float(np.nanmax(curve.bands["promised"].value)), float(data.gold.max()))
    gold.set_ylim(-0.03 * high, 1.3 * high)
    fraction = curve.bands["violations.walls"].value
    walls.fill_between(x, 0, np.nan_to_num(fraction), color=style.SOFT, alpha=0.35, linewidth=0)
    walls.plot(x, fraction, color=style.SOFT, linewidth=1.2)
    walls.set(ylim=(0, 1.05), yticks=[0, 1], yticklabels=["0", "100 %"])
    words = "fraction of plans through walls"
    walls.text(0.015, 0.6, words, fontsize=8.5, color=style.SOFT, va="center", transform=walls.transAxes)
    data_lines(proxy, data.proxy)
    data_lines(gold, data.gold)
    _peak(proxy, gold, walls, x, curve)
    broken_axis(walls, curve.strengths, x)
    for axes in (proxy, gold, walls):
        axes.set_xlim(x[0] - 0.15, x[-1] + 0.12)
        axes.tick_params(labelbottom=axes is walls, bottom=axes is walls)
    walls.set_xlabel(curve.strength_name)


def _curve(axes: Axes, x: Float[np.ndarray, "s"], band: Band, colour: str, marker: str) -> None:
    axes.fill_between(x, band.low, band.high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(x, band.value, color=colour, linewidth=2.2, marker=marker, markersize=5, zorder=4)


def _executed(axes: Axes, x: Float[np.ndarray, "s"], curve: Curve) -> None:
    """The return when plans are executed, as thin lines."""
    looks = (("tracked", (0, (4, 1.5)), "tracked by a controller"), ("open_loop", (0, (1, 1.2)), "open loop"))
    axes.lines[-1].set_label("promised")
    for name, dash, label in looks:
        axes.plot(x, curve.bands[name].value, color=style.GOLD, linewidth=1.1, linestyle=dash, zorder=3, label=label)
    axes.legend(loc="upper left", fontsize=8, facecolor="white", edgecolor="none", borderaxespad=0, labelspacing=0.2)


def _peak(proxy: Axes, gold: Axes, walls: Axes, x: Float[np.ndarray, "s"], curve: Curve) -> None:
    """The strength at which gold turns over, through all three parts."""
    best = curve.best
    for axes in (proxy, gold, walls):
        axes.axvline(x[best], color=style.INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
        axes.axvspan(x[best], x[-1] + 0.12, color=style.BROKEN, alpha=0.05, linewidth=0, zorder=0)
    if best == len(x) - 1:
        return
    at = blended_transform_factory(proxy.transData, proxy.transAxes)
    words = f"best valid\nplans: {curve.strengths[best]:g}"
    proxy.text(x[best] - 0.06, 0.96, words, ha="right", va="top", transform=at)


def strength_axis(strengths: Float[np.ndarray, "s"]) -> Float[np.ndarray, "s"]:
    """Where strengths stand: log10, and zero 0.7 decades left of the smallest other one."""
    positive = strengths[strengths > 0]
    if positive.size == 0:
        return np.zeros_like(strengths)
    return np.where(strengths > 0, np.log10(np.maximum(strengths, positive.min())), np.log10(positive.min()) - 0.7)


def _labels(strengths: Float[np.ndarray, "s"], x: Float[np.ndarray, "s"]) -> list[str]:
    """Every strength in figures, but for those too close to the label before."""
    room, labels, last = 0.075 * float(x[-1] - x[0]), [], -np.inf
    for strength, at in zip(strengths, x, strict=True):
        labels.append(f"{strength:g}" if at - last >= room else "")
        last = at if labels[-1] else last
    return labels


def broken_axis(axes: Axes, strengths: Float[np.ndarray, "s"], x: Float[np.ndarray, "s"]) -> None:
    """Ticks at the strengths; two strokes through the axis where it breaks between zero and the rest."""
    axes.set_xticks(x, _labels(strengths, x))
    if strengths[0] == 0 and len(x) > 1:
        at = blended_transform_factory(axes.transData, axes.transAxes)
        middle = (x[0] + x[1]) / 2
        gap = [middle - 0.05, middle + 0.05]
        axes.plot(gap, [0, 0], color="white", linewidth=3, transform=at, clip_on=False, zorder=9)
        for shift in (-0.05, 0.05):
            stroke = [middle + shift - 0.02, middle + shift + 0.02]
            axes.plot(stroke, [-0.09, 0.09], color=style.INK, linewidth=0.9, transform=at, clip_on=False, zorder=10)


def data_lines(axes: Axes, data: Float[np.ndarray, "n"]) -> None:
    """Where the data's quantiles lie, as thin lines named in the right margin. The limits and scale must be final."""
    values = data_quantiles(data, tuple(LEVELS))
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = np.array([to_axes.transform((0, value))[1] for value in values])
    spots = stack(heights, 0.085)
    at = axes.transAxes
    for value, height, spot, name in zip(values, heights, spots, LEVELS.values(), strict=True):
        axes.axhline(value, color=style.SOFT, linewidth=0.7, linestyle=(0, (1, 1.6)), zorder=1)
        axes.plot([1, 1.025], [height, spot], color=style.SOFT, linewidth=0.6, transform=at, clip_on=False)
        axes.text(1.035, spot, name, color=style.SOFT, fontsize=8.5, va="center", transform=at)
    axes.text(1.035, spots[-1] + 0.085, "data", color=style.SOFT, fontsize=8.5, va="center", transform=at)


def plane(axes: Axes, curves: dict[str, Curve], data: Data) -> None:
    """Part B: gold against proxy, a method a line over its strengths, single windows of the data behind."""
    axes.scatter(data.proxy, data.gold, s=5, color=style.FAINT, alpha=0.55, linewidth=0, zorder=1, rasterized=True)
    for curve in curves.values():
        _method(axes, curve)
    linear = 1.5 * float(data.proxy.max())
    furthest = max(float(np.nanmax(curve.bands["proxy"].value)) for curve in curves.values())
    axes.set_xscale("symlog", linthresh=linear, linscale=2.2)
    axes.set_xlim(min(-2.2, float(data_quantiles(data.proxy, (0.001,))[0])), furthest * 1.7)
    ticks = [t for t in (-2, 0, 2, 4, 10, 100, 1000, 10000) if t <= furthest * 1.7]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    best = max(float(np.nanmax(curve.bands["promised"].value)) for curve in curves.values())
    high = 1.14 * max(best, float(data.gold.max()))
    axes.set_ylim(-0.03 * high, high)
    limit = float(data.proxy.max())
    axes.axvline(limit, color=style.SOFT, linewidth=0.7, linestyle=(0, (1, 1.6)), zorder=1)
    axes.text(limit, 0.985 * high, "best proxy of the data ", color=style.SOFT, fontsize=8.5, va="top", ha="right")
    for curve in curves.values():
        if style.look(curve.method).main:
            _arrows(axes, curve)
    order = sorted(curves.values(), key=lambda curve: not style.look(curve.method).main)
    axes.text(axes.get_xlim()[0], 0.012 * high, " data windows", color=style.SOFT, fontsize=8.5, va="bottom")
    place(axes, [_named(curve) for curve in order], [text.get_window_extent() for text in axes.texts])


def _method(axes: Axes, curve: Curve) -> None:
    look = style.look(curve.method)
    x, y = curve.bands["proxy"].value, curve.bands["promised"].value
    width, size = (2.1, 6.0) if look.main else (1.1, 4.5)
    axes.plot(x, y, color=look.colour, linestyle=look.dash, linewidth=width, zorder=5 if look.main else 3)
    size, order = (15, 11) if curve.method == "prior" else (size, 9 if look.main else 7)
    marks = axes.plot(x, y, color=look.colour, linestyle="", marker=look.marker, markersize=size, zorder=order)[0]
    marks.set(markeredgecolor="white", markeredgewidth=0.5)


def _arrows(axes: Axes, curve: Curve) -> None:
    """Which way strength grows: a head on the longest stroke before the best gold, and on the longest after it."""
    points = axes.transData.transform(np.stack([curve.bands["proxy"].value, curve.bands["promised"].value], -1))
    lengths = np.nan_to_num(np.hypot(*np.diff(points, axis=0).T))
    for part in (slice(0, curve.best), slice(curve.best, None)):
        if lengths[part].size and lengths[part].max() > 40:
            k = (part.start or 0) + int(lengths[part].argmax())
            along = (points[k + 1] - points[k]) / lengths[k]
            middle = (points[k + 1] + points[k]) / 2
            ends = axes.transData.inverted().transform([middle - along, middle + 6 * along])
            head = {"arrowstyle": "-|>,head_length=0.55,head_width=0.3", "color": style.look(curve.method).colour}
            axes.annotate("", xy=ends[1], xytext=ends[0], arrowprops=head | {"shrinkA": 0, "shrinkB": 0}, zorder=8)


def _named(curve: Curve) -> Named:
    look = style.look(curve.method)
    points = np.stack([curve.bands["proxy"].value, curve.bands["promised"].value], -1)
    points = points[np.isfinite(points).all(-1)]
    return Named(look.label, look.colour, look.main, points, prefer=int(points[:, 1].argmax()))
