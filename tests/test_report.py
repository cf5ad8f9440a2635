"""The report on a SYNTHETIC run directory: invented numbers in the shape of the trial table of the design, no model.

`python tests/test_report.py DIRECTORY` writes that run directory, to look at the pictures without training anything.
"""

import base64
import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from diffplan.report import figure, load, maze, page, summary, table

# arm: dial, then (strength, proxy, gold, share of plans crossing a wall)
SYNTHETIC = {
    "prior": ("none", [(0, 0.0, 6.2, 0.0)]),
    "guided": (
        "guidance scale",
        [(0, 0.0, 6.2, 0.0), (1, 0.6, 10, 0.0), (3, 1.6, 18.9, 0.0), (10, 3.5, 35.2, 0.02), (30, 5.5, 43.4, 0.06)]
        + [(100, 9.5, 25.9, 0.81), (300, 41, 1.4, 0.99), (1000, 187, 0.05, 1.0)],
    ),
    "guided_classifier": (
        "guidance scale",
        [(0, 0.0, 6.1, 0.0), (1, 0.5, 9, 0.0), (3, 1.2, 15, 0.0), (10, 2.6, 27, 0.01), (30, 4.1, 33, 0.05)]
        + [(100, 6.2, 30, 0.5), (300, 16, 9, 0.95), (1000, 60, 0.6, 1.0)],
    ),
    "guided_plugin": (
        "guidance scale",
        [(0, 0.0, 6.3, 0.0), (1, 0.9, 12, 0.0), (3, 2.1, 22, 0.01), (10, 4.2, 37, 0.05), (30, 6.6, 34, 0.3)]
        + [(100, 14, 12, 0.92), (300, 70, 0.8, 1.0), (1000, 260, 0.02, 1.0)],
    ),
    "guided_raw": (
        "guidance scale",
        [(0, 0.0, 6.2, 0.0), (1, 1.8, 17, 0.1), (3, 4.4, 21, 0.5), (10, 11, 9, 0.9), (30, 34, 1.9, 1.0)]
        + [(100, 90, 0.3, 1.0), (300, 170, 0.04, 1.0), (1000, 330, 0.01, 1.0)],
    ),
    "best_of_n": (
        "n",
        [(1, 0.0, 6.2, 0.0), (2, 0.5, 9.7, 0.0), (4, 1.0, 13.6, 0.0), (8, 1.35, 16, 0.0), (16, 1.6, 18.5, 0.0)]
        + [(32, 1.9, 20.6, 0.0), (64, 2.1, 22.3, 0.0), (256, 2.5, 25.3, 0.0)],
    ),
    "ascent": (
        "ascent steps",
        [(0, 0.0, 6.2, 0.0), (3, 0.9, 9, 0.1), (10, 2.2, 13, 0.4), (30, 4.6, 16, 0.7), (100, 10.6, 11.9, 0.96)]
        + [(300, 38, 1.6, 1.0), (1000, 140, 0.1, 1.0), (3000, 422, 0.01, 1.0)],
    ),
    "ascent_clean": (
        "ascent steps",
        [(0, 0.0, 6.2, 0.0), (3, 1.3, 8, 0.2), (10, 3.4, 10, 0.6), (30, 8, 7, 0.95), (100, 30, 2.2, 1.0)]
        + [(300, 110, 0.3, 1.0), (1000, 320, 0.02, 1.0), (3000, 800, 0.0, 1.0)],
    ),
}
WALLS = np.array([[c == "#" for c in row] for row in ("#####", "#..##", "###.#", "#...#", "#####")])
WALLS[1, 3] = False
CORRIDOR = np.array([(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]) - 0.2  # cell centres
SEEDS, PLANS, HORIZON = 4, 12, 96


def synthetic_run(path: Path, seed: int = 0) -> Path:
    """Writes a synthetic run directory: invented scores, and plans made by shaking walks along the corridor of a U."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    with (path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, load.COLUMNS)
        writer.writeheader()
        for arm, (_, points) in SYNTHETIC.items():
            for point in points:
                writer.writerows(_row(rng, arm, *point, seed) for seed in range(SEEDS))
    arms = {arm: {"dial": dial, "strengths": [p[0] for p in points]} for arm, (dial, points) in SYNTHETIC.items()}
    config = {"environment": "synthetic U-maze", "synthetic": True, "horizon": HORIZON, "arms": arms}
    (path / "config.json").write_text(json.dumps(config, indent=2))
    drawn = {"walls": WALLS, "region": np.array([0.8, 2.8, 0.45], np.float32)}
    begin = rng.uniform(0.3, 5.7, PLANS)
    drawn["starts"] = _corridor(begin).astype(np.float32)
    for arm, (_, points) in SYNTHETIC.items():
        drawn[f"{arm}.strengths"] = np.array([p[0] for p in points], np.float32)
        plans = [_plans(begin, proxy, gold, crossing, arm.startswith("ascent"), seed) for _, proxy, gold, crossing in points]
        drawn[f"{arm}.positions"] = np.array(plans, np.float32)
    np.savez_compressed(path / "plans.npz", **drawn)
    z = rng.normal(size=4000)
    gold = np.clip(np.round(14 * z - 2 + 6 * rng.normal(size=z.size)), 0, 60) * (z > 0)
    data = {"proxy": (z - z.mean()) / z.std(), "gold": gold}
    np.savez_compressed(path / "data.npz", positions=_plans(begin, 0, 6, 0, False, 1).astype(np.float32), **data)
    return path


def _row(rng, arm, strength, proxy, gold, crossing, seed):
    shaken = gold * (1 + 0.04 * rng.normal()) + 0.2 * rng.normal()
    row = dict.fromkeys(load.COLUMNS, "")
    guided = arm.startswith("guided")
    row |= {"arm": arm, "strength": strength, "seed": seed, "plans": 64, "finite": 1.0, "seconds": 0.01}
    row |= {"proxy": proxy * (1 + 0.02 * rng.normal()) + 0.05 * rng.normal(), "gold_plan": max(shaken, 0)}
    row |= {"gold_actions": max(0.8 * shaken * (1 - 0.5 * crossing), 0), "gold_tracked": max(0.9 * shaken, 0)}
    row |= {"path_kl": 1.4 * strength**0.9 if guided else "", "segments_in_wall": crossing, "longest_step": 0.1 + crossing}
    row |= {"residual": 0.01 + crossing, "data_distance": 0.5 + 5 * crossing, "diversity": 1.0, "network_evals": 32}
    return row | {"proxy_evals": 32 if guided else 0, "env_steps": 0}


def _corridor(s):
    return np.stack([np.interp(s, np.arange(7), CORRIDOR[:, k]) for k in (0, 1)], -1)


def _plans(begin, proxy, gold, crossing, rough, seed):
    rng = np.random.default_rng(seed)  # the same noise at every strength
    time = np.linspace(0, 1, HORIZON)
    stay = np.minimum(gold / 43, 1)
    aim = np.where(rng.uniform(size=PLANS) < stay, 2.0, np.clip(begin + rng.normal(size=PLANS) * 2, 0, 6))
    s = begin[:, None] + (aim - begin)[:, None] * np.clip(time * (1 + 1.5 * stay), 0, 1)
    wiggle = np.cumsum(np.cumsum(rng.normal(size=(PLANS, HORIZON, 2)), 1), 1) / HORIZON**1.5
    positions = _corridor(s) + 0.12 * np.tanh(wiggle)
    if proxy > 3:
        noise = rng.normal(size=positions.shape)
        smooth = np.cumsum(noise, 1) / 10
        positions = positions + crossing * np.log1p(proxy) * (0.2 * noise if rough else 0.5 * smooth)
    positions[:, 0] = _corridor(begin)
    return positions


if __name__ == "__main__":
    print(synthetic_run(Path(sys.argv[1])))
