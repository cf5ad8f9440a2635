"""The scales of axes. Strengths stand on a broken logarithmic one, fractions on a linear one.

Scores stand on a linear one, which becomes logarithmic where they run away.
"""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from diffplan.report import style

FAR = 2.0
"""How many times their own range scores may run beyond what an axis must show before it becomes logarithmic."""


def strength_axis(strengths: Float[np.ndarray, "s"]) -> Float[np.ndarray, "s"]:
    """Where strengths stand: log10, and zero 0.7 decades left of the smallest other one; fractions on three decades."""
    if fractions(strengths):
        return 3 * strengths
    positive = strengths[strengths > 0]
    if positive.size == 0:
        return np.zeros_like(strengths)
    return np.where(strengths > 0, np.log10(np.maximum(strengths, positive.min())), np.log10(positive.min()) - 0.7)


def fractions(strengths: Float[np.ndarray, "s"]) -> bool:
    """Whether strengths are fractions of something: from 0 to 1."""
    return bool(len(strengths) > 1 and strengths[0] == 0 and strengths[-1] == 1)


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
    if strengths[0] == 0 and len(x) > 1 and not fractions(strengths):
        at = blended_transform_factory(axes.transData, axes.transAxes)
        middle = (x[0] + x[1]) / 2
        gap = [middle - 0.05, middle + 0.05]
        axes.plot(gap, [0, 0], color="white", linewidth=3, transform=at, clip_on=False, zorder=9)
        for shift in (-0.05, 0.05):
            stroke = [middle + shift - 0.02, middle + shift + 0.02]
            axes.plot(stroke, [-0.09, 0.09], color=style.INK, linewidth=0.9, transform=at, clip_on=False, zorder=10)


def reach(axes: Axes, which: str, core: Float[np.ndarray, "n"], beyond: Float[np.ndarray, "m"]) -> None:
    """Fit an axis of scores to values: linear over the core, logarithmic beyond it if values run far away.

    Args:
        axes: whose axis is set.
        which: "x" or "y".
        core: values that must be told apart; without any, the axis stays as it is.
        beyond: other values that must be on the axis.
    """
    if core.size == 0:
        return
    low, high = float(core.min()), float(core.max())
    wide = max(high - low, 1e-6, 1e-3 * abs(high))
    every = np.concatenate([core, beyond])
    least, most = float(every.min()), float(every.max())
    set_scale, set_limits = getattr(axes, f"set_{which}scale"), getattr(axes, f"set_{which}lim")
    if least >= low - FAR * wide and most <= high + FAR * wide:
        room = most - least + wide / 10
        set_limits(least - 0.04 * room, most + 0.09 * room)
        return
    linear = 1.15 * max(abs(low), abs(high), 1e-6)
    set_scale("symlog", linthresh=linear, linscale=1.8)
    set_limits(least * 1.6 if least < -linear else low - 0.1 * wide, most * 2 if most > linear else high + 0.1 * wide)
    inner = [t for t in MaxNLocator(4).tick_values(low, high) if abs(t) <= linear and low - wide <= t <= high + wide]
    tens = 10.0 ** np.arange(np.ceil(np.log10(1.7 * linear)), np.log10(max(most, -least)) + 0.3)
    tens = tens[:: max(1, len(tens) // 4)]
    ends = getattr(axes, f"get_{which}lim")()
    ticks = [t for t in (*-tens[::-1], *inner, *tens) if min(ends) <= t <= max(ends)]
    getattr(axes, f"set_{which}ticks")(
        ticks, [(f"{t:g}" if abs(t) < 1e4 else f"{t:.0e}".replace("e+0", "e")).replace("-", "−") for t in ticks]
    )
    axes.minorticks_off()
