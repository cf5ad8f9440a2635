"""Run directories with invented numbers and no model, in every shape that the report must draw.

`python -m tests.report_runs KIND DIRECTORY` writes one, to look at the pictures without training anything.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np

from diffplan.metrics.table import COLUMNS, columns_of

KINDS = ("cells", "plane", "series", "offline", "unrewarded", "few")
"""cells: a plane with solid cells, all methods; plane: a plain plane, two violations, negative returns; series: time
series; offline: no simulator; unrewarded: the prior alone; few: one seed, few methods, one that diverges."""

# method: strength_name, family, then for each strength: strength, proxy, promised, delivered, fraction infeasible
METHODS = {
    "prior": ("none", "prior", "0 0 6.2 5.9 0"),
    "guided": (
        *("guidance scale", "guidance"),
        "0 0 6.2 5.9 0; 1 0.6 10 9.6 0; 3 1.6 18.9 17 0; 10 3.5 35.2 27 0.015; 30 5.5 43.4 24 0.06; "
        "100 9.5 55.9 9 0.81; 300 41 21.4 2 0.99; 1000 187 0.05 1 1",
    ),
    "guided_classifier": (
        *("guidance scale", "guidance"),
        "0 0 6.1 6 0; 1 0.5 9 8.7 0; 3 1.2 15 14 0; 10 2.6 27 21 0.01; 30 4.1 33 22 0.05; 100 6.2 30 12 0.5; "
        "300 16 9 4 0.95; 1000 60 0.6 1 1",
    ),
    "guided_dps": (
        *("guidance scale", "guidance"),
        "0 0 6.3 6 0; 1 0.9 12 11 0; 3 2.1 22 18 0.01; 10 4.2 37 22 0.05; 30 6.6 44 13 0.3; 100 14 12 3 0.92; "
        "300 70 0.8 0 1; 1000 260 0.02 0 1",
    ),
    "best_of_n": (
        *("n", "selection"),
        "1 0 6.2 5.9 0; 2 0.5 9.7 9.3 0; 4 1 13.6 13 0; 8 1.35 16 15 0; 16 1.6 18.5 17 0; 64 2.1 22.3 21 0",
    ),
    "ascent": (
        *("ascent steps", "ascent"),
        "0 0 6.2 5.9 0; 3 0.9 9 7 0.1; 10 2.2 13 8 0.4; 30 4.6 16 6 0.7; 100 10.6 11.9 3 0.96; 300 38 1.6 1 1; "
        "3000 422 0.01 0 1",
    ),
    "mppi": ("iterations", "planning", "1 0.4 8 8 0; 4 1.8 15 15 0; 16 2.6 18 18 0"),
    "behaviour": ("none", "control", "0 0 5.8 5.8 0"),
    "null_noise": ("guidance scale", "control", "0 0 6.2 5.9 0; 10 0.1 5.5 5 0.01; 1000 0.4 1.2 0.5 1"),
    "null_shuffled": ("guidance scale", "control", "0 0 6.2 5.9 0; 10 0.3 6.1 5.4 0.02; 1000 0.8 1.4 0.7 1"),
    "bound": ("none", "control", "0 nan 36 36 0"),
}
METHODS = {
    method: (name, family, [tuple(float(number) for number in point.split()) for point in points.split(";")])
    for method, (name, family, points) in METHODS.items()
}
SOLID = np.array([[c == "#" for c in row] for row in ("#####", "#...#", "###.#", "#...#", "#####")])
CORRIDOR = np.array([(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]) - 0.2  # cell centres
SEEDS, PLANS, HORIZON = 4, 12, 64

TASK = {
    "name": "u-corridor",
    "return": "steps in the target",
    "observations": ["x [cells]", "y [cells]", "vx [cells/s]", "vy [cells/s]"],
    "actions": ["force x", "force y"],
    "violations": {"walls": "through walls"},
    "place": ["x [cells]", "y [cells]"],
    "step": "step",
}
TASKS = {
    "cells": TASK,
    "offline": TASK | {"return": "steps in the target (labels of the data)"},
    "few": TASK,
    "plane": TASK
    | {"name": "lake", "return": "metres short of the shore", "place": ["east [m]", "north [m]"]}
    | {"violations": {"speed": "faster than the boat", "land": "over land"}},
    "series": TASK
    | {"name": "pendulum", "return": "reward", "observations": ["cos angle", "sin angle", "angular velocity [rad/s]"]}
    | {"violations": {"torque": "with too large a torque"}, "place": None, "step": "step (0.05 s)"},
    "unrewarded": TASK | {"name": "log of a robot", "return": None, "place": None, "violations": {}},
}
LEFT_OUT = {
    "offline": ["open loop, inverse, tracked, delivered: the task has no simulator"],
    "unrewarded": ["delivered: the task has no simulator", "proxy, promised: the task has no reward"],
}


def methods_of(kind: str) -> dict:
    """The methods of a kind of run, with their points."""
    chosen = {"unrewarded": ("prior",), "few": ("prior", "best_of_n", "ascent")}.get(kind, tuple(METHODS))
    chosen = [name for name in chosen if kind != "offline" or name not in ("mppi", "bound")]
    return {name: METHODS[name] for name in chosen}


def write_run(path: Path, kind: str = "cells") -> Path:
    """Writes a run directory of a kind: invented scores, and plans that are shaken walks."""
    rng = np.random.default_rng(0)
    path.mkdir(parents=True, exist_ok=True)
    methods, task = methods_of(kind), TASKS[kind]
    rows = [
        row(rng, kind, method, point, seed)
        for method, (_, _, points) in methods.items()
        for point in points
        for seed in range(1 if kind == "few" else SEEDS)
    ]
    with (path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns_of(rows), restval="")
        writer.writeheader()
        writer.writerows({name: "" if value != value else value for name, value in row.items()} for row in rows)
    ways = {"mppi": "open_loop"}
    about = {
        method: {"strength_name": name, "family": family, "delivered_by": ways.get(method, "inverse")}
        for method, (name, family, _) in methods.items()
    }
    config = {"task": task, "horizon": HORIZON, "methods": about, "left_out": LEFT_OUT.get(kind, [])}
    if kind != "unrewarded":
        config["reward_models"] = {"regression": {"rank_correlation": 0.81, "calibration": 0.94, "windows": 512}}
    (path / "config.json").write_text(json.dumps(config, indent=2))
    write_plans(path, kind)
    z = rng.normal(size=2000)
    promised = np.clip(np.round(14 * z - 2 + 6 * rng.normal(size=z.size)), 0, 60) * (z > 0)
    if kind == "unrewarded":
        z, promised = z * np.nan, z * np.nan
    windows = drawn(kind, walks(begin(), 0, 6, 0, False, 1))
    np.savez_compressed(path / "data.npz", proxy=z, promised=returns(kind, promised), positions=windows)
    return path


def returns(kind: str, values):
    """Returns of a kind of task: those of the plane are negative."""
    return values - 60 if kind == "plane" else values


def row(rng, kind: str, method: str, point: tuple[float, ...], seed: int) -> dict:
    """A row of results.csv; a value that does not exist is NaN."""
    strength, proxy, promised, delivered, infeasible = point
    best = {"guided": 10, "guided_classifier": 10, "best_of_n": 64, "prior": 0}.get(method)
    shaken = returns(kind, promised * (1 + 0.04 * rng.normal()))
    real = returns(kind, delivered * (1 + 0.06 * rng.normal()) + 0.2 * rng.normal())
    row = dict.fromkeys(COLUMNS, np.nan) | {"task": TASKS[kind]["name"], "method": method, "strength": strength}
    row |= {"seed": seed, "plans": 64, "finite": 1.0, "seconds": 0.01, "pretrain_seconds": 0}
    row |= {"proxy": proxy * (1 + 0.02 * rng.normal()) + 0.05 * rng.normal(), "promised": shaken}
    row |= {"open_loop": 0.5 * real, "inverse": real, "tracked": 0.9 * real, "delivered": real}
    row |= {"replanned": 1.1 * real if strength == best else np.nan, "feasible": 1 - infeasible}
    row |= {"path_kl": 1.4 * strength**0.9 if method.startswith("guided") or method == "prior" else np.nan}
    row |= {"longest_step": 0.1 + infeasible, "residual": 0.01 + infeasible, "data_distance": 0.5 + 5 * infeasible}
    row |= {"diversity": 1.0, "network_evals": 32 * max(1, strength if method == "best_of_n" else 1), "proxy_evals": 0}
    names = list(TASKS[kind]["violations"])
    row |= {f"violations.{name}": infeasible / (k + 1) for k, name in enumerate(names)}
    carried_out = ("open_loop", "inverse", "tracked", "delivered", "replanned")
    missing = {"offline": carried_out, "unrewarded": (*carried_out, "proxy", "promised")}.get(kind, ())
    if kind == "few" and method == "ascent":  # it diverges
        kept = ("task", "method", "strength", "seed", "plans", "seconds")
        return {name: row[name] if name in kept else np.nan for name in row} | {"finite": 0.0}
    return row | dict.fromkeys(missing, np.nan)


def write_plans(path: Path, kind: str) -> None:
    """plans.npz of a kind of run."""
    arrays = {"starts": drawn(kind, walks(begin(), 0, 6, 0, False, 0))[:, 0].astype(np.float32)}
    if kind in ("cells", "few", "offline"):
        arrays |= {"solid": SOLID, "origin": np.full(2, -0.7), "size": np.array(1.0)}
        arrays["region"] = np.array([0.8, 2.8, 0.45], np.float32)
    if TASKS[kind]["place"] is None:
        arrays["entries"] = np.arange(arrays["starts"].shape[-1])
    for method, (_, _, points) in methods_of(kind).items():
        if method in ("bound", "mppi"):
            continue
        rough = method.startswith("ascent")
        x = [drawn(kind, walks(begin(), p, max(0, g), bad, rough, 0)) for _, p, g, _, bad in points]
        x = np.array(x, np.float32) * (np.nan if kind == "few" and rough else 1)
        arrays |= {f"{method}.strengths": np.array([p[0] for p in points], np.float32), f"{method}.positions": x}
        if kind in ("plane", "series"):
            arrays[f"{method}.broken"] = np.abs(np.diff(x, axis=2)).max(-1) > 0.5
    np.savez_compressed(path / "plans.npz", **arrays)


def begin() -> np.ndarray:
    """Where plans begin along the corridor."""
    return np.random.default_rng(5).uniform(0.3, 5.7, PLANS)


def corridor(s):
    """Points of the corridor."""
    return np.stack([np.interp(s, np.arange(7), CORRIDOR[:, k]) for k in (0, 1)], -1)


def drawn(kind: str, positions):
    """Positions in the plane as what a kind of task draws: the plane itself, or three observations."""
    if kind != "series":
        return positions
    angle = positions[..., 0] + positions[..., 1]
    return np.stack([np.cos(angle), np.sin(angle), np.gradient(angle, axis=1) / 0.05], -1)


def walks(begin, proxy, promised, infeasible, rough, seed):
    """Walks along the corridor; the more infeasible, the more they are shaken."""
    rng = np.random.default_rng(seed)  # the same noise at every strength
    time = np.linspace(0, 1, HORIZON)
    stay = np.minimum(promised / 43, 1)
    aim = np.where(rng.uniform(size=PLANS) < stay, 2.0, np.clip(begin + rng.normal(size=PLANS) * 2, 0, 6))
    s = begin[:, None] + (aim - begin)[:, None] * np.clip(time * (1 + 1.5 * stay), 0, 1)
    wiggle = np.cumsum(np.cumsum(rng.normal(size=(PLANS, HORIZON, 2)), 1), 1) / HORIZON**1.5
    positions = corridor(s) + 0.12 * np.tanh(wiggle)
    if proxy > 3:
        noise = rng.normal(size=positions.shape)
        shaken = 0.2 * noise if rough else 0.5 * np.cumsum(noise, 1) / 10
        positions = positions + infeasible * np.log1p(proxy) * shaken
    positions[:, 0] = corridor(begin)
    return positions


if __name__ == "__main__":
    print(write_run(Path(sys.argv[2]), sys.argv[1]))
