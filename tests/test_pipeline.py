"""Whole comparisons at the smallest size: a task of every family, every task that ships, and every method.

Nothing is learned in two steps; what is checked holds for any plans: which rows, columns and files there are, that
behaviour repeats itself, that nothing earns more than the bound, and what is left out and why.
"""

import json
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.cli.main import main
from diffplan.experiment.compare import compare
from diffplan.learn.reward import top_class
from diffplan.methods import catalogue
from diffplan.planner import build as building
from diffplan.runs import Run
from diffplan.settings import ConfigError
from diffplan.task import Task
from diffplan.tasks import TASKS, make_task
from tests import small
from tests.small import numbers, results

CONTROLS = {"behaviour", "null_noise", "null_shuffled"}
FLOW = {"guided_few_steps", "few_steps_contrastive", "few_steps_dps", "few_steps_posterior", "null_few_steps"}
FILES = {"results.csv", "config.json", "data.npz", "plans.npz", "data", "prior", "reward", "methods", "inverse"}
FEW = {"maze2d": {"episodes": 12, "steps": 250}}
"""As many as it takes for some window to earn something."""


@cache
def ran(name: str, folder: Path) -> Path:
    """A run of `compare` with one method and its controls, planned anew once on the way."""
    config = small.fewest(methods=("best_of_n",), replans=2)
    run = folder / name.replace(":", "-")
    with small.small(config, **FEW.get(TASKS[name].module, {})):
        main(["compare", name, "--preset", "debug", "--run", str(run)])
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def check(name: str, run: Path) -> None:
    """What holds of every comparison on a task that ships."""
    task = make_task(name)
    rows, config = results(run), small.config(run)
    assert FILES <= {path.name for path in run.iterdir()}
    bounded = {"bound"} if task.bound else set()
    assert {row["method"] for row in rows} == {"prior", "best_of_n"} | CONTROLS | bounded
    planned = [row for row in rows if row["method"] not in ("behaviour", "bound")]
    ways = ["open_loop", "inverse"] + ["tracked"] * (task.tracker is not None)
    for column in ("promised", "delivered", "feasible", *ways):
        assert np.isfinite(numbers(planned, column)).all(), column
    np.testing.assert_array_equal(numbers(planned, "delivered"), numbers(planned, "inverse"))
    behaviour = [row for row in rows if row["method"] == "behaviour"]
    assert (numbers(behaviour, "feasible") == 1).all() and (numbers(behaviour, "finite") == 1).all()
    if task.starts is None and not TASKS[name].module == "pointmaze":
        earned = numbers(behaviour, "promised")
        np.testing.assert_allclose(numbers(behaviour, "open_loop"), earned, rtol=1e-3, atol=2e-3)
    if task.bound:
        best = {row["seed"]: float(row["promised"]) for row in rows if row["method"] == "bound"}
        assert all(float(row["delivered"]) <= best[row["seed"]] + 0.6 for row in planned)
    replanned = {row["method"] for row in rows if row["replanned"]}
    assert replanned == {"prior", "best_of_n"}
    assert config["task"]["name"] == name and config["task"]["ways"] == ways
    assert len(config["task"]["observations"]) == task.observation_dim
    assert {f"violations.{kind}" for kind in config["task"]["violations"]} < rows[0].keys()
    with np.load(run / "plans.npz") as plans:
        assert ("solid" in plans) == (task.plane is not None)
        assert plans["best_of_n.positions"].shape[-2:] == (8, 2 if task.plane else min(3, task.observation_dim))


FAMILIES = ("maze2d-umaze", "gridworld-fourrooms", "linear-point", "pendulum")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_from_data_to_delivery(name, folder):
    check(name, ran(name, folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TASKS if name not in FAMILIES])
def test_every_task_from_data_to_delivery(name, folder):
    if TASKS[name].module == "pointmaze":
        pytest.importorskip("ogbench")
    check(name, ran(name, folder))


def test_a_finished_run_is_read_back(folder):
    """Nothing is made anew: no stage is written again, and the rows are the same."""
    run = ran("linear-point", folder)
    stages = {path: path.stat().st_mtime_ns for path in run.rglob("stage.json")}
    before = results(run)
    ran.__wrapped__("linear-point", folder)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("stage.json")} == stages and len(stages) >= 6
    assert results(run) == before


CART = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv


class Cart(CartPoleEnv):
    '''CartPole that is paid for standing left.'''

    def step(self, action):
        observation, _, terminated, truncated, more = super().step(action)
        return observation, float(-observation[0]), terminated, truncated, more


gymnasium.register("Cart-v0", Cart, max_episode_steps=60)
"""


@pytest.fixture
def carts(tmp_path, monkeypatch) -> str:
    """An id with its module."""
    (tmp_path / "carts.py").write_text(CART)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "carts:Cart-v0"


# -- every method --


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maze2d-umaze", "gridworld-fourrooms", "carts:Cart-v0"])
def test_every_method_runs_or_is_left_out_by_name(name, carts, tmp_path):
    run = tmp_path / "run"
    config = small.fewest(methods=("all",), seeds=1)
    with small.small(config, **FEW.get(name.partition("-")[0], {})):
        main(["compare", name, "--preset", "debug", "--run", str(run)])
    rows, left = results(run), small.config(run)["left_out"]
    out = {line.removeprefix("method ").partition(":")[0] for line in left if line.startswith("method ")}
    ran = {row["method"] for row in rows} - {"behaviour", "bound"}
    entries = catalogue(config.strengths)
    assert ran | out == set(entries) and not ran & out
    dynamics = {"cem", "mppi", "reinforce", "ppo", "ppo_occupancy", "receding_model"}
    lacking = {carts: dynamics, "gridworld-fourrooms": {*FLOW, "gradient_model"}}  # of continuous plans
    assert out - {"tree"} == lacking.get(name, set())
    assert ("tree" in out) == (name != "gridworld-fourrooms" or find_spec("mctx") is None)
    reasons = (": needs ", ": plans in one-hot cells alone", ": cannot plan in one-hot cells")
    assert all(any(reason in line for reason in reasons) for line in left if "method" in line[:7])
    for row in rows:
        if row["method"] not in ("behaviour", "bound"):
            assert float(row["finite"]) == 1 and row["delivered"], row["method"]
            learns = entries[row["method"]].family in ("policies", "fine-tuning")
            assert (row["pretrain_evals"] != "") == learns, row["method"]
            assert (row["converged"] != "" and row["finer_levels"] == "") or not learns, row["method"]


@pytest.mark.parametrize("name", ["linear-point", "Pendulum-v1"])
def test_rows_may_be_a_stride_apart(name, tmp_path):
    """8 rows of 3 steps are carried out for 24 steps, and the learned controller looks 3 steps ahead."""
    stride = ["--prior.stride", "3", "--methods", "prior", "--replans", "2"]
    small.command("compare", name, "--run", str(tmp_path), *stride)
    rows = results(tmp_path)
    planned = [row for row in rows if row["method"] == "prior"]
    for column in ("promised", "open_loop", "inverse", "delivered", "replanned", "violations.jumps"):
        assert np.isfinite(numbers(planned, column)).all(), column
    inverse = json.loads((tmp_path / "inverse" / "stage.json").read_text())
    assert inverse["settings"]["steps"] == 3
    if name == "linear-point":
        bound = make_task(name).bound
        starts = np.load(tmp_path / "plans.npz")["starts"]
        assert bound is not None
        best = float(np.mean([bound(start, 24) for start in starts]))
        (known,) = (row for row in rows if row["method"] == "bound" and row["seed"] == "0")
        assert float(known["promised"]) == pytest.approx(best, rel=1e-4)
        assert (numbers([row for row in planned if row["seed"] == "0"], "delivered") <= best).all()
    else:  # a cost of at most 16.27 a step
        assert (numbers(planned, "delivered") <= 0).all() and (numbers(planned, "delivered") >= -16.3 * 24).all()


# -- simulators of others --


def test_a_gymnasium_id_with_choices_and_a_module(carts, tmp_path):
    """Its rewards are recorded and learned; plans are carried out on the host, in two ways."""
    run = tmp_path / "run"
    small.command("compare", carts, "--run", str(run), "--methods", "prior")
    rows, config = results(run), small.config(run)
    planned = [row for row in rows if row["method"] != "behaviour"]
    for column in ("promised", "open_loop", "inverse", "delivered", "violations.jumps", "violations.bounds"):
        assert np.isfinite(numbers(planned, column)).all(), column
    assert config["task"]["name"] == "Cart-v0" and config["task"]["ways"] == ["open_loop", "inverse"]
    assert (
        "promised: estimated by a reward of single rows that was learned from held-out episodes" in config["left_out"]
    )


def test_a_reward_that_all_windows_earn_is_refused_and_the_prior_is_not(tmp_path, capsys):
    """CartPole pays 1 a step: every window of 8 rows earns 8."""
    run = tmp_path / "run"
    said = small.refused(capsys, "compare", "CartPole-v1", "--run", str(run))
    assert said.startswith("reward: all 200 labelled windows earn 8: there is nothing to learn; choose another reward")
    assert "proxy.labels" in said and not (run / "prior").exists() and not (run / "reward").exists()
    small.command("compare", "CartPole-v1", "--run", str(run), "--methods", "prior")
    rows = results(run)
    assert {row["method"] for row in rows} == {"prior", "behaviour"}
    survived = numbers([row for row in rows if row["method"] == "prior"], "open_loop")
    assert (survived > 0).all() and (survived <= 8).all()  # it pays for steps before the pole falls
    small.command("train", "CartPole-v1", "--run", str(tmp_path / "other"))
    assert (tmp_path / "other" / "prior" / "stage.json").exists()


# -- rare rewards --


def rare(fraction: float) -> Task:
    """Episodes of one window each, of which some fraction earns 3, by a flag that observations carry."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000 * 8, 2)).astype(np.float32)
    earns = np.arange(1000) < round(1000 * fraction)
    rows[::8, 1] = np.where(rng.permutation(earns), 3.0, 0.0)
    rows[np.arange(8000) % 8 > 0, 1] = 0.0
    ends = np.arange(8000) % 8 == 7
    reward = lambda observation, action: jnp.maximum(observation[1], 0.0)
    return Task.from_arrays(rows, rows[:, :1], terminals=ends, reward=reward, name="rare")


@pytest.mark.parametrize("fraction", [0.08, 0.014])
def test_rare_rewards_train_and_are_counted(fraction, tmp_path, capsys):
    """8 % and 1.4 % of windows earn anything: the classifier's class is what is above the lowest return."""
    config = replace(small.smaller(), proxy=replace(small.smaller().proxy, labels=1000))
    build = building.start(Run(tmp_path), rare(fraction), config)
    said = " ".join(capsys.readouterr().out.split())
    share = float(said.partition("reward: ")[2].partition(" % of windows earn more than the least, 0")[0]) / 100
    assert share == pytest.approx(fraction, abs=3 * np.sqrt(fraction / 1000))
    returns = build.returns(build.data.train, building.labelled_windows(build, 1000))
    assert float(top_class(returns, 0.9).mean()) == pytest.approx(share, rel=0.02)
    made = building.fit_network(build, "classifier", config.reward_model, "classifier")
    assert all(bool(jnp.isfinite(part).all()) for part in jax.tree.leaves(made.model.params))
    scores = jax.vmap(made.model.score)(build.data.train.draws(jax.random.key(0), 8))
    assert bool(jnp.isfinite(scores).all())


def test_a_reward_that_nobody_earns_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"all 200 labelled windows earn 0: .*choose another reward, behaviour that"):
        compare(Run(tmp_path), rare(0.0), small.smaller(), small.fewest())
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"data"}
