"""Trains a planner that ships with the package, and writes it into diffplan/planner/pretrained:

python scripts/launch/pretrain.py maze2d-umaze           # about 25 minutes on two CPU cores
python scripts/launch/pretrain.py gridworld-fourrooms    # about 12 minutes

Expect a file of at most 4 MB. Ways to goals are learned as well. The prior is trained three times as long
as the demo's, and the reward from four times as many labels.
"""

import sys
from dataclasses import replace
from pathlib import Path

from diffplan.cli import command
from diffplan.planner.planner import Planner
from diffplan.planner.presets import settings_of
from diffplan.runs import say
from diffplan.settings import ConfigError
from diffplan.tasks import make_task

LEFT_OUT = {"maze2d-umaze": ("energy", "low_level")}
"""Networks of ways to goals that would not fit: selection does without."""

FOLDER = Path(__file__).parents[2] / "diffplan" / "planner" / "pretrained"


def action(name: str) -> None:
    """Train the planner of a task, and write its file."""
    demo = settings_of("demo")
    prior = replace(demo.prior, train=replace(demo.prior.train, steps=5400), states=512, width=64)
    proxy = replace(demo.proxy, labels=4000, train=replace(demo.proxy.train, steps=2000))
    settings = replace(demo, prior=prior, proxy=proxy)
    planner = Planner.fit(make_task(name), Path("runs") / "pretrained" / name, settings=settings, goals=True)
    path = FOLDER / f"{name}.npz"
    if path.exists():
        raise ConfigError(f"{path}: is there already: move it away")
    assert planner.ways is not None
    planner = replace(planner, ways=replace(planner.ways, **dict.fromkeys(LEFT_OUT.get(name, ()))))
    say(f"{planner.save(path, half=True)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        command.fail("name one task: python scripts/launch/pretrain.py maze2d-umaze")
    command.run(lambda: action(sys.argv[1]))
