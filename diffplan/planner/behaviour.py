"""What is learned from: episodes of a task, split, normalised, cut into windows."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffplan.codec import Cells, Codec
from diffplan.data import files, stream
from diffplan.data.stream import Data
from diffplan.data.windows import Windows
from diffplan.episodes import Episodes
from diffplan.planner.decide import Decided
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run, keep
from diffplan.runs.files import plain, text_digest, versions
from diffplan.settings import ConfigError
from diffplan.task import Reward, Task

SAMPLE = 65_536
"""Windows that stand for all where these do not fit the device."""


class Behaviour(NamedTuple):
    """Episodes and their windows.

    kept, aside: the episodes to train on, and the held-out ones. rows: the normaliser of rows. codec: that of plans.
    every: all windows to train on, on the device or in blocks. train: those, or a sample of them.
    """

    kept: Episodes
    aside: Episodes
    rows: Codec
    codec: Codec | Cells
    every: Data
    train: Windows
    held_out: Windows
    identity: str

    def windows(self, horizon: int, stride: int = 1) -> Data:
        """Other windows of the rows to train on, normalised as rows are."""
        return stream.windows_of(self.kept, self.rows, horizon, stride)


class Builder(NamedTuple):
    """What every stage is built from. reward: the true reward of a row, or what stands for it."""

    run: Run
    task: Task
    decided: Decided
    data: Behaviour
    reward: Reward | None

    @property
    def config(self) -> PlannerSettings:
        """The settings, as far as they were chosen, and as they follow from the episodes."""
        return self.decided.config

    @property
    def stride(self) -> int:
        """Steps from one row of a plan to the next."""
        return self.decided.stride

    @property
    def span(self) -> int:
        """Steps of a plan."""
        return self.decided.horizon * self.stride

    @property
    def inputs(self) -> dict[str, str]:
        """What everything that is learned depends on."""
        return {"data": self.data.identity}

    @property
    def rewarded(self) -> bool:
        """Whether there is anything that a reward could be learned from."""
        return self.task.reward is not None or self.data.kept.rewards is not None

    def gains(self, windows: Windows, first: Int[Array, "n"], true: Reward | None = None) -> Float[Array, "n h"]:
        """What each row of some windows earns, all steps up to the next row counted.

        By `true`, or the task's reward, held from row to row; by the recorded rewards where there is neither.
        """
        by = true or self.task.reward

        def earned(first: Int[Array, ""]) -> Float[Array, "h"]:
            if by is None:
                assert windows.rewards is not None
                recorded = jax.lax.dynamic_slice(windows.rewards, (first,), (windows.span,))
                return recorded.reshape(windows.horizon, -1).sum(axis=1)
            plan = windows.trajectory(first)
            return self.stride * jax.vmap(by)(plan.observations, plan.actions)

        return jax.jit(jax.vmap(earned))(first)

    def returns(self, windows: Windows, first: Int[Array, "n"]) -> Float[Array, "n"]:
        """The return of some windows."""
        return self.gains(windows, first).sum(axis=1)


def make_data(run: Run, task: Task, name: str = "data") -> tuple[Episodes, str]:
    """The data stage: ``RUN/data/rows.npz``; returns (episodes, identity)."""

    def write(directory: Path) -> None:
        files.save(directory / "rows.npz", task.episodes(), {"config": plain(task.settings), "versions": versions()})

    kept = keep(run, name, write, {"task": task.settings}, files=("rows.npz", "rows.json"))
    return files.load(kept.directory / "rows.npz")[0], kept.identity


def split(task: Task, decided: Decided, episodes: Episodes, identity: str) -> Behaviour:
    """Episodes to train on and held-out ones, of those that hold a window, as windows."""
    held_out, shape = decided.config.prior.held_out, (decided.horizon, decided.stride)
    span = decided.horizon * decided.stride
    long = episodes.lengths >= span
    if long.sum() == 1 and episodes.count > 1:
        raise ConfigError(f"prior.horizon={shape[0]}: but one of {episodes.count} episodes has {span} steps: need two")
    kept, aside = episodes.select(long).split(held_out)
    codec = Codec.fit(kept.observations, kept.actions, task.discrete)
    plans = task.cells or codec
    on_device = lambda part: part._replace(
        observations=jnp.asarray(part.observations), actions=jnp.asarray(part.actions)
    )
    if stream.fits(kept.nbytes):
        kept, aside = on_device(kept), on_device(aside)
    every = stream.windows_of(kept, plans, *shape)
    train = every if isinstance(every, Windows) else every.sample(jax.random.key(0), SAMPLE)
    about = text_digest(f"{identity} {shape} {held_out}")
    return Behaviour(kept, aside, codec, plans, every, train, Windows.of(aside, plans, *shape), about)
