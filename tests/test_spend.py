"""Equal budgets: what a setting costs, how many candidates a budget buys, and which of them is kept."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.count import counted
from diffplan.experiment.search import Setting
from diffplan.experiment.spend import Spending, candidates_of, ratio, rival, seconds_of, spend
from diffplan.methods import Entry, Plans, catalogue
from diffplan.methods.strengths import StrengthSettings
from tests import problems

KNOWN = problems.linear(count=64)


@dataclass(frozen=True)
class Corner:
    """A proxy that scores a plan by its first entry."""

    def score(self, x):
        return x[0, 0]

    def reward(self, x):
        return x[0, 0]

    def __call__(self, x, sigma):
        return x[0, 0]


jax.tree_util.register_static(Corner)
PROBLEM = replace(KNOWN.problem, regression=Corner())


@dataclass(frozen=True)
class Dice:
    """Plans of even noise between 0 and the strength; `rolls` network evaluations each."""

    strengths: tuple[float, ...] = (1.0, 2.0, 4.0)
    name: str = "dice"
    strength_name: str = "height"
    rolls: int = 3
    shared: bool = False
    proxy = staticmethod(lambda problem: problem.regression)

    def __call__(self, key, problem, starts, strengths) -> Plans:
        def one(key):
            roll = lambda _, x: counted("network_evals", x)
            return jax.lax.fori_loop(0, self.rolls, roll, jax.random.uniform(key, problem.shape))

        return Plans.of(strengths[:, None, None, None] * jax.vmap(one)(jax.random.split(key, len(starts)))[None])


DICE = rival(Entry("own", "", "plans", Dice(), ("regression",)))._replace(
    variants=({}, {"rolls": 2}, {"candidates": 0.25})
)


def test_a_setting_costs_its_evaluations_and_one_score():
    spending = Spending(KNOWN.starts)
    assert spending.evaluations(DICE, Setting(2.0), PROBLEM) == 3 + 1
    assert spending.evaluations(DICE, Setting(2.0, 1), PROBLEM) == 6 + 1


def test_what_one_plan_leaves_of_a_budget_buys_more():
    """Equation (175): 0.4 seconds at 0.04 a plan are ten plans."""
    assert candidates_of(DICE, Setting(1.0), 0.04, 0.4001) == 10
    assert candidates_of(DICE, Setting(1.0), 0.04, 0.0399) == 0
    assert candidates_of(DICE, Setting(1.0, 2), 0.04, 0.4001) == 2
    assert candidates_of(DICE, Setting(1.0, 2), 0.04, 0.05) == 1  # a fraction of one is one


class Clock:
    """Batches that take some seconds by a clock of their own, and longer when the machine is busy."""

    now = 0.0

    def batch(self, seconds: float, busy: tuple[float, ...]):
        times = iter([seconds * times for times in busy])

        def draw(keys):
            self.now += next(times)

        return draw


def test_what_a_batch_takes_is_told_in_batches_beside_it(monkeypatch):
    """A machine that is three times as slow for some calls changes no ratio; the first calls do not count."""
    clock = Clock()
    monkeypatch.setattr("diffplan.experiment.spend.perf_counter", lambda: clock.now)
    busy = (90.0, 1.0, 3.0, 3.0, 1.0, 3.0)
    assert ratio(clock.batch(0.5, busy), clock.batch(0.1, busy[::-1][:1] + busy[1:])) == pytest.approx(5)
    batch = clock.batch(0.5, (90.0, 1.0, 1.0, 3.0, 1.0, 1.0))
    assert seconds_of(batch) == pytest.approx(0.5)


@pytest.mark.parametrize("candidates", [1, 3, 15])
def test_of_the_candidates_the_best_scored_is_kept(candidates):
    """The largest of n even numbers in [0, w] is n w / (n + 1) in the mean."""
    spent = spend(jax.random.key(1), Spending(KNOWN.starts), DICE, Setting(2.0), PROBLEM, KNOWN.starts, candidates)
    mean, std = 2 * candidates / (candidates + 1), 2 * np.sqrt(candidates / (candidates + 2)) / (candidates + 1)
    assert float(spent.x[:, 0, 0].mean()) == pytest.approx(mean, abs=4 * std / 8)
    assert float(spent.x[:, 1:].mean()) == pytest.approx(1, abs=0.1)  # nothing else was chosen
    np.testing.assert_array_equal(spent.score, spent.x[:, 0, 0])
    assert spent.evaluations == candidates * 4 and spent.seconds > 0 and spent.training == (0, 0)


def test_a_program_serves_all_problems_of_its_structure():
    spending = Spending(KNOWN.starts)
    other = replace(PROBLEM, sampler=replace(PROBLEM.sampler, sigmas=2 * PROBLEM.sampler.sigmas))
    for problem in (PROBLEM, other):
        spend(jax.random.key(0), spending, DICE, Setting(1.0), problem, KNOWN.starts, 1)
    assert len(spending.kept) == 1


def test_variants_are_factors_on_what_a_method_has():
    known = catalogue(StrengthSettings())
    guided = rival(known["guided"])
    assert guided.words(Setting(1.0, 4)) == "levels x2" and guided.words(Setting(1.0, 1)) == "one candidate"
    assert guided.axes.grid == tuple(strength for strength in known["guided"].method.strengths if strength > 0)
    sigmas = guided.problem(PROBLEM, Setting(1.0, 4)).sampler.sigmas
    np.testing.assert_allclose(sigmas[jnp.array([0, -1])], PROBLEM.sampler.sigmas[jnp.array([0, -1])], rtol=1e-5)
    assert len(sigmas) == 2 * len(PROBLEM.sampler.sigmas)
    ascent = rival(known["ascent"])
    rates = [ascent.method(Setting(4, number)).rate for number in range(5)]
    np.testing.assert_allclose(rates, np.array([1, 1, 1, 0.3, 3]) * rates[0])
    assert ascent.strengths(Setting(4.0)) == (4,) and isinstance(ascent.strengths(Setting(4.0))[0], int)
    mppi = rival(known["mppi"])
    assert [mppi.method(Setting(4, number)).population for number in (0, 3, 4)] == [64, 256, 16]


@pytest.mark.parametrize("name", catalogue(StrengthSettings()))
def test_every_method_can_be_tuned(name):
    each = rival(catalogue(StrengthSettings())[name])
    assert 1 <= len(each.variants) == each.axes.variants
    for number, variant in enumerate(each.variants):
        assert each.method(Setting(each.axes.grid[0], number)).strengths[0] == each.axes.grid[0]
        assert (candidates_of(each, Setting(1.0, number), 1.0, 99) == 1) == (variant.get("candidates") == 0)
