"""Planners read back: from a run, or from one file that holds numbers and what rebuilds the networks around them.

The file is a NumPy archive. ``about`` is JSON: format, task with its settings, settings of the planner, sizes,
versions, a digest of the numbers and the command that made them. Every other array is a leaf of the model, by its path
in the tree. Reading makes the networks as they are initialised, in shape alone, and puts the numbers in their places.
"""

import json
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffplan.codec import Cells, Codec
from diffplan.learn import chain, flow_map, inverse, prior, reward, row_reward
from diffplan.noise import NoiseSettings, karras
from diffplan.planner import reaching
from diffplan.planner.feasible import Limits
from diffplan.planner.model import PlanModel
from diffplan.planner.planner import Planner
from diffplan.planner.settings import PlannerSettings
from diffplan.resolve import resolve
from diffplan.runs import Run
from diffplan.runs.config import settings_from
from diffplan.runs.files import RunError, digest, plain, read_json, versions
from diffplan.samplers import STEPS, Sampler
from diffplan.settings import ConfigError, require
from diffplan.task import Task
from diffplan.tasks import source

FORMAT = 1
ABOUT = "about"
OPTIONAL = ("energy", "low_level")
"""Parts of ways to goals that a file may leave out: what guides, and what fills the gaps with actions."""


def save(planner: Planner, path: Path, half: bool) -> Path:
    """Write a planner into a new file; returns its path.

    Raises:
        ConfigError: if something stands there, or if the planner has a part that is not rebuilt from its settings.
    """
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    require(not path.exists(), "path", str(path), "a file that does not exist yet")
    if planner.settings is None:
        raise ConfigError("planner: holds ways to goals alone, which one file cannot hold; keep the run instead")
    kind = planner.settings.reward_model.kind
    require(kind == "learned", "reward_model.kind", kind, "learned, to be saved in one file; keep the run instead")
    leaves = named(parts(planner))
    arrays = {name: shorten(np.asarray(leaf)) if half else np.asarray(leaf) for name, leaf in leaves.items()}
    name, settings = planner.task.origin or (planner.task.name, None)
    about = {
        "format": FORMAT,
        "task": name,
        "task_settings": plain(settings),
        "dims": [planner.task.observation_dim, planner.task.action_dim],
        "planner": plain(planner.settings),
        "inverse_steps": planner.model.inverse.steps,
        "energy": planner.model.energy is not None,
        "few_steps": planner.model.flow_map is not None,
        "evaluations": planner.model.evaluations,
        "tolerance": planner.model.tolerance,
        "row_reward": planner.measures[0].learned is not None,
        "goals": None if planner.goals is None else plain(planner.goals),
        "left_out": [name for name in OPTIONAL if planner.ways is not None and getattr(planner.ways, name) is None],
        "limits": [planner.limits.typical, planner.limits.longest],
        "digest": digest(arrays),
        "command": " ".join(Path(word).name for word in sys.argv[:1]) + " " + " ".join(sys.argv[1:]),
        "versions": versions(),
    }
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{ABOUT: np.asarray(json.dumps(about))}, **arrays)
    part.replace(path)
    return path


def shorten(array: np.ndarray) -> np.ndarray:
    """Floating-point numbers with 14 bits each: high bytes, then low bytes ``[2, n]``, which compress well so."""
    if array.dtype != np.float32 or array.size <= 64:
        return array
    bits = (array.astype("<f2").view("<u2") + 2) & 0xFFFC
    return np.ascontiguousarray(bits.astype("<u2").reshape(-1, 1).view(np.uint8).T[::-1])


def lengthen(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `shorten`, where an array was."""
    if array.dtype != np.uint8 or array.shape != (2, int(np.prod(shape))):
        return array
    return np.ascontiguousarray(array[::-1].T).view("<f2").reshape(shape).astype(np.float32)


def parts(planner: Planner) -> dict[str, Any]:
    """Everything of a planner that numbers decide."""
    low, high = planner.bounds
    fixed = {"std": planner.limits.std, "low": low, "high": high}
    return {"model": planner.model, "ways": planner.ways, "rows": planner.measures[0].learned, "fixed": fixed}


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree, by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def load(path: Path | str, task: Task | None = None) -> Planner:
    """Read a planner back. It trains nothing, and writes and moves no file.

    Args:
        path: a run directory of `Planner.fit` or of a command, or a file of `Planner.save`.
        task: in place of the one that the run or the file names: needed where it was made in a program.

    Raises:
        RunError: naming what is missing, damaged, or made with other settings than this task's.
        ConfigError: if it names no task that can be made, and none is given.
    """
    path = Path(path).expanduser()
    return load_run(path, task) if path.is_dir() else load_file(path, task)


def load_run(path: Path, task: Task | None) -> Planner:
    """Read a planner from a run directory."""
    config = path / "config.json"
    there = read_json(config)
    kept = there.get("settings") if isinstance(there, dict) else None
    if not isinstance(kept, dict) or "planner" not in kept:
        raise RunError(f"{config}: no such file, or it holds no settings of a planner")
    task = task_named(kept.get("name", ""), kept.get("task"), path) if task is None else task
    goals = settings_from(reaching.GoalSettings, kept["goals"], config) if "goals" in kept else None
    settings = settings_from(PlannerSettings, kept["planner"], config)
    run, distilled = Run(path, read_only=True), (path / "flow_map" / "stage.json").exists()
    try:
        return Planner.assemble(run, task, settings, goals, distilled)
    except RunError:
        if not distilled:
            raise
    return Planner.assemble(run, task, settings, goals)  # the flow map is not finished, or is that of another prior


def load_file(path: Path, task: Task | None = None) -> Planner:
    """Read a planner from a file.

    Raises:
        RunError: if the file is missing, damaged, or no planner.
        ConfigError: if it names no task that can be made, and none is given.
    """
    arrays = read(path)
    about = json.loads(str(arrays.pop(ABOUT)))
    task = task_named(about["task"], about["task_settings"], path) if task is None else task
    dims = [task.observation_dim, task.action_dim]
    require(dims == about["dims"], "task", task.name, f"one of dimensions {about['dims']}, as in {path}")
    settings = settings_from(PlannerSettings, about["planner"], path)
    goals = None if about["goals"] is None else settings_from(reaching.GoalSettings, about["goals"], path)

    def like() -> dict[str, Any]:
        blank = lambda size: jnp.zeros(size)
        left_out = dict.fromkeys(about["left_out"])
        return {
            "model": untrained(settings, task, about["inverse_steps"], about["energy"], about.get("few_steps", False)),
            "ways": None if goals is None else replace(reaching.untrained(goals, rows_of(task)), **left_out),
            "rows": row_reward.untrained(rows_of(task), settings.row_reward) if about["row_reward"] else None,
            "fixed": {"std": blank(dims[0]), "low": blank(dims[1]), "high": blank(dims[1])},
        }

    whole = fill(like, arrays, path)
    model = replace(whole["model"], evaluations=about.get("evaluations"), tolerance=about.get("tolerance"))
    typical, longest = about["limits"]
    fixed = {name: np.asarray(value) for name, value in whole["fixed"].items()}
    limits, bounds = Limits(typical, longest, fixed["std"]), (fixed["low"], fixed["high"])
    reward_of_row = whole["rows"] or task.reward
    return Planner(task, model, reward_of_row, limits, bounds, settings, whole["ways"], goals)


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises:
        RunError: if it cannot be read, or is altered, or is no planner.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file, and no run directory")
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays[ABOUT]))
        known, sound = about["format"] == FORMAT, digest({k: v for k, v in arrays.items() if k != ABOUT})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"{path}: is no planner, or is damaged ({type(error).__name__})") from None
    if not known:
        raise RunError(f"{path}: is of format {about['format']}: this version reads {FORMAT}")
    if sound != about["digest"]:
        raise RunError(f"{path}: its digest does not match: it is damaged or was altered")
    return arrays


def fill(like: Callable[[], Any], arrays: dict[str, np.ndarray], path: Path) -> Any:
    """The tree that `like` makes, of which nothing is computed, with the arrays of a file as its leaves."""
    structure = []

    def leaves() -> list[jax.Array]:
        flat, tree = jax.tree_util.tree_flatten_with_path(like())
        structure.append(([jax.tree_util.keystr(at) for at, _ in flat], tree))
        return [leaf for _, leaf in flat]

    shapes = jax.eval_shape(leaves)
    names, tree = structure[0]
    values = [leaf_of(arrays, name, leaf, path) for name, leaf in zip(names, shapes, strict=True)]
    return jax.tree.unflatten(tree, values)


def leaf_of(arrays: dict[str, np.ndarray], name: str, like: Any, path: Path) -> jax.Array:
    """A leaf of the model, by its path in the tree.

    Raises:
        RunError: if the file has none of that name and shape.
    """
    array = lengthen(arrays[name], like.shape) if name in arrays else None
    if array is None or array.shape != like.shape:
        there = "missing" if array is None else list(array.shape)
        raise RunError(f"{path}: {name} is {there}: this version needs {list(like.shape)}")
    return jnp.asarray(array, like.dtype)


def task_named(name: str, values: Any, path: Path) -> Task:
    """The task that a run or a file names, with these settings."""
    try:
        made = source(name)
    except ConfigError:
        raise ConfigError(f"{path}: its task {name!r} was made in a program: give it, as task=...") from None
    if made.settings is None:
        return made.make(None)
    settings = settings_from(type(made.settings), values or {}, path)
    return replace(made.make(settings), origin=(name, settings))


def rows_of(task: Task) -> Codec:
    """A normaliser of rows, in shape alone."""
    width = task.observation_dim + task.action_dim
    return Codec(jnp.zeros(width), jnp.ones(width), task.observation_dim, task.discrete)


def untrained(settings: PlannerSettings, task: Task, steps: int, rewarded: bool, few_steps: bool = False) -> PlanModel:
    """The model that `Planner.fit` trains, as it is initialised. steps: the most steps ahead of the controller."""
    rows = rows_of(task)
    codec: Codec | Cells = task.cells or rows
    horizon, stride = settings.prior.horizon, settings.prior.stride
    assert horizon is not None and stride is not None
    chained = settings.prior.network == "chain" or task.cells is not None
    states = chain.blank(settings.prior.states or 0, codec.width) if chained else None
    denoiser = prior.untrained(settings.prior, horizon, codec, states)
    levels = NoiseSettings(settings.noise.low or 0.02, settings.noise.high or 10.0)
    shape, sampler = (horizon, codec.width), settings.sampler
    of = states if settings.flow_map.network == "chain" else None
    flow = flow_map.untrained(settings.flow_map, shape, codec.observation_dim, of) if few_steps else None
    rule = resolve(sampler.rule, STEPS, "sampler.rule")
    return PlanModel(
        rows=rows,
        codec=codec,
        prior=denoiser,
        sampler=Sampler(karras(sampler.steps, levels.low, levels.high), shape, rule),
        inverse=inverse.untrained(rows, steps, settings.inverse.width),
        energy=reward.untrained("regression", settings.proxy, *shape) if rewarded else None,
        flow_map=flow,
        stride=stride,
        warmed=sampler.steps // 2,
    )


def pretrained(name: str) -> Planner:
    """A planner that ships.

    Raises:
        ConfigError: if none of that name does.
    """
    folder = files("diffplan") / "planner" / "pretrained"
    known = sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".npz"))
    require(name in known, "pretrained", name, f"one of {', '.join(known)}")
    return load_file(Path(str(folder / f"{name}.npz")))
