"""The harness: which strengths it tries, that it finds the peak of a curve that is known, and what it fills in."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.count import counted
from diffplan.experiment import harness
from diffplan.experiment.harness import (
    Begin,
    Bench,
    Plan,
    between,
    keys_of,
    method_rows,
    method_stage,
    problem_for,
    program_of,
    programs_of,
    run_method,
    shared_out,
)
from diffplan.methods import FAMILIES, Entry, Plans, Problem, catalogue, guidance
from diffplan.methods.grids import log_grid, whole_grid
from diffplan.methods.strengths import StrengthSettings
from diffplan.metrics.table import best_strength
from diffplan.runs import Run, RunError
from tests import problems


def test_grids_are_even_in_the_logarithm():
    assert log_grid(1, 1000, 4) == (0, 1, 10, 100, 1000)
    assert log_grid(1, 1000, 7)[1:4] == (1, 3.2, 10)
    assert whole_grid(800, 6) == (0, 1, 4, 14, 55, 210, 800)
    assert whole_grid(3, 10, 1) == (1, 2, 3)


def test_new_strengths_lie_on_both_sides_of_the_best():
    grid = (0.0, 1.0, 10.0, 100.0)
    assert between(grid, 10, 1) == (3.2, 32)
    assert between(grid, 10, 2) == (2.2, 4.6, 22, 46)
    assert between(grid, 100, 1) == (32,)  # nothing lies beyond the largest
    assert between(grid, 1, 1) == (0.32, 3.2)  # down to a tenth
    assert between(grid, 0, 1) == (0.32,)
    assert between((0, 1, 10, 100), 10, 1) == (3, 32)  # iterations are whole
    assert between((0, 1, 2), 1, 3) == ()


HORIZON = 40


@dataclass(frozen=True)
class Peaked:
    """Plans whose every step is in cell 0 with a fraction that is largest at strength 3."""

    strengths: tuple[float, ...] = (0.0, 1.0, 10.0, 100.0)
    name: str = "peaked"
    strength_name: str = "none"
    shared: bool = False
    proxy: Any = guidance.regression

    def __call__(self, key, problem, starts, strengths):
        fraction = jnp.exp(-(jnp.log(strengths / 3 + 1e-3) ** 2))
        count = jnp.round(fraction * problem.horizon)
        stays = jnp.arange(problem.horizon)[None] < count[:, None]
        x = jnp.where(stays[:, :, None], jax.nn.one_hot(0, problem.codec.width), jax.nn.one_hot(3, problem.codec.width))
        return Plans.of(jnp.broadcast_to(x[:, None], (len(strengths), len(starts), *problem.shape)))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return problems.grid(horizon=HORIZON).problem


def bench_of(problem: Problem, replanned: Any = None, program: str = "grid", **columns: Any) -> Bench:
    """A gridworld as the harness takes it: begins differ by seed, and columns are functions of the steps in cell 0."""
    cells: Any = problem.codec

    def starts(key, count):
        cell = jax.random.randint(key, (count,), 0, len(cells.places))
        return Begin(cell, cells.places[cell], jnp.zeros(count, int))

    def measure(key, proxy, begin, x):
        stays = jnp.mean(jnp.sum(jnp.argmax(x, axis=2) == 0, axis=1))
        return {"promised": stays, "feasible": 1.0} | {name: value(stays) for name, value in columns.items()}

    pictures = lambda x: {"positions": cells.decode(x).observations}
    return Bench("grid", problem, starts, measure, lambda proxy: program, replanned, pictures, "models")


ONE = Plan(seeds=1, plans=2, refine=0, seed=0)


def rows_of(entry: Entry, plan: Plan, bench: Bench) -> Any:
    return method_rows(entry, plan, bench, programs_of(entry, plan, bench), "")


def batches_of(entry: Entry, plan: Plan, bench: Bench) -> Any:
    return list(run_method(entry, plan, bench, programs_of(entry, plan, bench)))


def entry_of(family: str = "own", acts_on: Any = "plans", **fields: Any) -> Entry:
    return Entry(family, "", acts_on, Peaked(**fields), ())


def test_a_peak_between_grid_points_is_found(problem):
    bench = bench_of(problem)
    coarse, _ = rows_of(entry_of(), ONE, bench)
    fine, pictures = rows_of(entry_of(), ONE._replace(refine=3), bench)
    assert best_strength(coarse) == 1.0
    assert best_strength(fine) == pytest.approx(3, abs=1.5)
    strengths = [row["strength"] for row in fine]
    assert strengths == sorted(strengths) and len(strengths) == 4 + 6
    np.testing.assert_allclose(pictures["strengths"], strengths, rtol=1e-6)
    assert pictures["positions"].shape == (10, 2, HORIZON, 2)


def test_strengths_are_added_around_the_best_by_what_plans_deliver(problem):
    """Where plans are carried out, and promise the more the less they deliver: at 0, and not at 1."""
    rows, _ = rows_of(entry_of(), ONE._replace(refine=1), bench_of(problem, inverse=lambda stays: -stays))
    assert [row["strength"] for row in rows] == pytest.approx([0, 0.32, 1, 10, 100])
    assert all(row["delivered"] == row["inverse"] == -row["promised"] for row in rows)


def test_what_a_method_acts_on_says_what_delivers(problem):
    """Plans by inverse dynamics, actions in the open loop; a policy's plans are runs already. Levels are of plans."""
    bench = bench_of(problem, inverse=lambda stays: stays + 1, open_loop=lambda stays: stays + 2)
    for acts_on, further in (("plans", 1), ("actions", 2), ("policy", 0)):
        (((row,), _),) = batches_of(entry_of(acts_on=acts_on, strengths=(3.0,)), ONE, bench)
        assert row["delivered"] == row["promised"] + further and ("levels" in row) == (acts_on == "plans")
        assert (row["task"], row["method"], row["seed"], row["plans"]) == ("grid", "peaked", 0, 2)
    (((row,), _),) = batches_of(entry_of(strengths=(3.0,)), ONE, bench_of(problem))
    assert np.isnan(row["delivered"])  # nothing is carried out


class Replanned:
    """A fake: notes how it is called, and returns the steps in cell 0 of the plans that it draws."""

    def __init__(self):
        self.calls = []

    def __call__(self, key, draw, begin, column):
        x = draw(key, begin.observations)
        self.calls.append((tuple(jax.random.key_data(key).tolist()), begin, column))
        return float(jnp.sum(jnp.argmax(x, axis=2) == 0)) / len(x)


@pytest.mark.parametrize("shared", [False, True])
def test_plans_are_made_anew_at_the_best_strength_alone(problem, shared):
    replanned, plan = Replanned(), Plan(seeds=2, plans=3, refine=1, seed=7)
    rows, _ = rows_of(entry_of(shared=shared), plan, bench_of(problem, replanned))
    best = best_strength(rows)
    for row in rows:
        assert ("replanned" in row) == (row["strength"] == best)
        assert row.get("replanned", row["promised"]) == row["promised"]  # of the same strength, from any start
    assert len(replanned.calls) == 2 == len({key for key, *_ in replanned.calls})
    for seed, (_, begin, column) in enumerate(replanned.calls):
        expected = bench_of(problem).starts(keys_of(plan, seed)[0], 3)
        np.testing.assert_array_equal(begin.observations, expected.observations)
        assert column == "inverse"


@pytest.mark.parametrize("family", FAMILIES)
def test_policies_tuned_priors_and_controls_are_not_made_anew(problem, family):
    replanned = Replanned()
    rows_of(entry_of(family, "actions", strengths=(3.0,)), ONE, bench_of(problem, replanned))
    assert [column for *_, column in replanned.calls] == ["open_loop"] * (
        family not in ("policies", "fine-tuning", "controls")
    )


def test_every_seed_has_its_own_starts_and_is_the_same_again(problem):
    seen = []
    bench = bench_of(problem)
    starts = lambda key, count: (
        seen.append(np.asarray(bench.starts(key, count).observations)) or bench.starts(key, count)
    )
    for _ in range(2):
        batches_of(entry_of(), Plan(2, 16, 0, 0), bench._replace(starts=starts))
    _, first, second, _, *again = seen  # programs are traced for starts of one number, before any seed
    assert (first != second).any()
    np.testing.assert_array_equal([first, second], again)


def test_rows_are_kept_until_strengths_or_programs_change(problem, tmp_path):
    """A changed measure or method makes rows anew; so does a changed model, where that is allowed."""
    entry, bench, run = entry_of(strengths=(1.0, 3.0)), bench_of(problem), Run(tmp_path)
    made = lambda entry=entry, bench=bench, run=run: method_stage(entry, ONE, bench, run, {}, "sampler")
    rows, path = made(), tmp_path / "methods" / "peaked"
    written = (path / "rows.csv").stat().st_mtime_ns
    assert made() == rows and (path / "rows.csv").stat().st_mtime_ns == written
    assert [row["strength"] for row in rows] == ["1", "3"] and rows[0]["task"] == "grid"
    assert made(bench=bench_of(problem, program="other")) != []
    assert [folder.name for folder in path.parent.iterdir() if folder != path] == ["peaked.old-1"]
    more = entry._replace(method=replace(entry.method, strengths=(1.0, 2.0, 3.0)))
    assert len(made(entry=more, run=Run(tmp_path, new_settings=True))) == 3
    assert (path.parent / "peaked.old-2").is_dir()


def test_replans_are_recorded_where_plans_are_made_anew(problem, tmp_path):
    bench = bench_of(problem, Replanned())

    def rows(folder, plan, new_settings=False, **fields):
        entry = entry_of(**fields, strengths=(3.0,))
        return method_stage(entry, plan, bench, Run(tmp_path / folder, new_settings), {}, "sampler")

    (first,), more = rows("a", ONE._replace(replans=2)), ONE._replace(replans=4)
    with pytest.raises(RunError, match=r"peaked: plan\.replans was 2 and is now 4; --new-settings"):
        rows("a", more)
    assert rows("a", more, True)[0]["replanned"] == first["replanned"] != ""
    policy = {"family": "policies", "acts_on": "policy"}
    assert rows("b", ONE._replace(replans=2), **policy) == rows("b", more, **policy)


def test_a_method_is_the_same_program_among_any_others(problem):
    """Whatever other methods need: of the optional parts it is given those alone that it names."""
    entry = catalogue(StrengthSettings(points=1))["guided_dps"]
    parts = {name for name, value in vars(problem_for(entry, problem)).items() if value is not None}
    assert parts == {"denoise", "codec", "sampler", "data", "clean"}
    alone = bench_of(replace(problem, regression=None, dynamics=None))
    identity = lambda bench: program_of(entry, bench, programs_of(entry, ONE, bench))
    assert identity(alone) == identity(bench_of(problem))
    other = replace(problem, sampler=replace(problem.sampler, sigmas=problem.sampler.sigmas[::2]))
    assert identity(alone) != identity(bench_of(other))


# -- plans with steps half as long (144) --


@dataclass(frozen=True)
class Stiff(Peaked):
    """Plans that stay in cell 0 for half as many steps as there are levels, at strength 1; at strength 0 for 20."""

    strengths: tuple[float, ...] = (0.0, 1.0)

    def __call__(self, key, problem, starts, strengths):
        count = jnp.where(strengths > 0, problem.sampler.levels // 2, 20)
        stays = jnp.arange(problem.horizon)[None] < count[:, None]
        x = jnp.where(stays[:, :, None], jax.nn.one_hot(0, problem.codec.width), jax.nn.one_hot(3, problem.codec.width))
        return Plans.of(jnp.broadcast_to(x[:, None], (len(strengths), len(starts), *problem.shape)))


def test_a_strength_that_twice_as_many_levels_change_has_not_converged(problem):
    levels = problem.sampler.levels
    bench = bench_of(problem, inverse=lambda stays: stays + 1, finite=lambda stays: 1.0)
    rows, _ = rows_of(Entry("guidance", "", "plans", Stiff(), ()), Plan(2, 3, 0, 0, finer=1), bench)
    assert [row["converged"] for row in rows] == [1, 0] * 2
    assert levels == 32
    assert [row["promised"] for row in rows] == [20, 16] * 2
    assert [row["finer_promised"] for row in rows] == [20, 31] * 2
    assert [row["finer_delivered"] for row in rows] == [21, 32] * 2
    assert {row["finer_levels"] for row in rows} == {63}
    rows, _ = rows_of(Entry("guidance", "", "plans", Stiff(), ()), Plan(1, 3, 0, 0, finer=2), bench)
    assert [(row["finer_levels"], row["finer_promised"]) for row in rows] == [(125, 20), (125, 40)]  # all 40 steps


@pytest.mark.parametrize(("family", "finer"), [("guidance", 0), ("selection", 1), ("ascent", 1)])
def test_what_the_sampler_does_not_draw_or_nobody_asked_for_is_not_drawn_again(problem, family, finer):
    rows, _ = rows_of(Entry(family, "", "plans", Stiff(), ()), ONE._replace(finer=finer), bench_of(problem))
    assert all("converged" not in row and "finer_promised" not in row for row in rows)


def test_guided_plans_of_one_key_stay_close_where_steps_are_halved():
    """Strength 0 of guidance is the prior; a batch of its plans at twice as many levels is nearly the same batch."""
    problem = problems.grid(horizon=8).problem
    finer = replace(problem, sampler=replace(problem.sampler, halvings=1))
    starts = jnp.zeros((16, 2))
    draw = lambda problem, key: guidance.Prior()(jax.random.key(key), problem, starts, jnp.zeros(1)).x[0]
    same = jnp.abs(draw(finer, 0) - draw(problem, 0)).mean()
    other = jnp.abs(draw(problem, 1) - draw(problem, 0)).mean()
    assert float(same) < 0.5 * float(other)


# -- methods that learn (164) --


@dataclass(frozen=True)
class Schooled(Peaked):
    """Plans that stay in cell 0 for a step an update, at strength 1; at strength 0 for 20. Each update is counted."""

    strengths: tuple[float, ...] = (0.0, 1.0)
    updates: int = 8

    def longer(self, factor):
        return replace(self, updates=factor * self.updates)

    def fit(self, key, problem, strengths):
        update = lambda stays, _: (stays + counted("env_steps", jnp.ones(())), None)
        stays = jax.lax.scan(update, jnp.zeros(()), None, length=self.updates)[0]
        return {"stays": jnp.where(strengths > 0, stays, 20)}

    def draw(self, key, problem, learned, starts, strengths):
        plan = jnp.arange(problem.horizon)[None] < learned["stays"][:, None]
        x = jnp.where(plan[:, :, None], jax.nn.one_hot(0, problem.codec.width), jax.nn.one_hot(3, problem.codec.width))
        x = jnp.broadcast_to(x[:, None], (len(strengths), len(starts), *problem.shape))
        return Plans.of(jax.vmap(jax.vmap(lambda x: counted("network_evals", x)))(x))


@pytest.mark.parametrize("shared", [False, True])
def test_what_training_takes_is_in_columns_of_its_own(problem, monkeypatch, shared):
    """By a clock that ticks once in each call, of a fit or of a batch of plans."""
    monkeypatch.setattr(harness, "perf_counter", iter(np.arange(100.0)).__next__)
    entry = Entry("policies", "", "policy", Schooled(shared=shared), ())
    for batch, _ in batches_of(entry, Plan(2, 4, 0, 0), bench_of(problem)):
        assert [row["pretrain_evals"] for row in batch] == [8, 8]
        assert [(row["network_evals"], row["proxy_evals"], row["env_steps"]) for row in batch] == [(1, 0, 0)] * 2
        assert [row["pretrain_seconds"] for row in batch] == [1, 1]
        assert [row["seconds"] for row in batch] == ([1 / 8] * 2 if shared else [1 / 4] * 2)
    assert all(
        "pretrain_evals" not in row for batch, _ in batches_of(entry_of(), ONE, bench_of(problem)) for row in batch
    )


def test_seconds_of_one_call_for_all_strengths_are_shared_out():
    work = np.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(shared_out([8.0], work, shared=False), [0, 2, 6])
    np.testing.assert_allclose(
        shared_out([6.0], work, shared=True), [0, 2, 6]
    )  # that of the largest is the others', too
    np.testing.assert_allclose(shared_out([1.0, 2.0, 3.0], work, shared=False), [1, 2, 3])


@pytest.mark.parametrize("family", ["policies", "fine-tuning", "own"])
def test_a_policy_that_twice_as_many_updates_change_has_not_converged(problem, family):
    bench = bench_of(problem, inverse=lambda stays: stays + 1, finite=lambda stays: 1.0)
    rows = lambda finer: rows_of(Entry(family, "", "plans", Schooled(), ()), Plan(2, 3, 0, 0, finer=finer), bench)[0]
    for finer, after in ((1, 16), (2, 32)):
        made = rows(finer)
        assert [row["converged"] for row in made] == [1, 0] * 2
        assert [row["promised"] for row in made] == [20, 8] * 2
        assert [row["finer_promised"] for row in made] == [20, after] * 2
        assert [row["finer_delivered"] for row in made] == [21, after + 1] * 2
        assert [row["pretrain_evals"] for row in made] == [8, 8] * 2
        assert all("finer_levels" not in row for row in made)
    assert all("converged" not in row and "finer_promised" not in row for row in rows(0))


def test_a_policy_of_ones_own_is_followed_anew_as_it_was_trained(problem):
    replanned = Replanned()
    entry = Entry("own", "", "plans", Schooled(), ())
    rows, _ = rows_of(entry, Plan(2, 3, 0, 0), bench_of(problem, replanned))
    best = best_strength(rows)
    assert [row.get("replanned") for row in rows if row["strength"] == best] == [20, 20] and len(replanned.calls) == 2
