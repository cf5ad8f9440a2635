"""What an experiment learns beside prior and proxies: each part is a stage, made once, and refused when it differs."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.data.windows import Rows, Windows
from diffplan.experiment import build
from diffplan.experiment.build import Behaviour, Builder
from diffplan.experiment.settings import ExperimentSettings
from diffplan.learn.behaviour import BehaviourSettings
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.dynamics import DynamicsSettings
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import ProxySettings
from diffplan.learn.train import TrainSettings
from diffplan.learn.value import ValueSettings
from diffplan.methods.base import Problem
from diffplan.noise import karras
from diffplan.runs import Run, RunError
from diffplan.runs.files import digest
from diffplan.samplers import Sampler
from diffplan.tasks import maze2d
from diffplan.tasks.maze2d import DataSettings, GoldSettings
from tests import problems

pytestmark = pytest.mark.slow  # five networks are compiled and trained

H = 16
SHORT = TrainSettings(steps=2, batch=2, chunk=2)
CONFIG = ExperimentSettings(
    prior=PriorSettings(SHORT, horizon=H),
    proxy=ProxySettings(SHORT, labels=20, width=8, depth=1),
    dynamics=DynamicsSettings(SHORT, transitions=50, members=2, width=8, depth=1),
    value=ValueSettings(SHORT, width=8, depth=1),
    behaviour=BehaviourSettings(SHORT, width=8, depth=1),
    conditional=ConditionalSettings(SHORT, width=8, depth=1),
)
PARTS = {"model", "value", "behaviour", "conditional", "conservative"}
STAGES = {"dynamics", "value", "behaviour", "conditional", "reward/conservative/clean"}


def builder(directory: Path) -> Builder:
    """A run whose behaviour is random numbers."""
    rng = np.random.default_rng(0)
    rows = Rows(rng.normal(size=(4, 40, 4)).astype(np.float32), rng.normal(size=(4, 40, 2)).astype(np.float32))
    rows.observations[..., :2] = 2 + rows.observations[..., :2] / 2  # some of them where the reward pays
    codec = Codec.fit(*rows)
    windows = Windows.of(rows, codec, H)
    task = maze2d.task(DataSettings(), GoldSettings(radius=1.0))
    return Builder(Run(directory), task, CONFIG, Behaviour(codec, windows, windows, "random numbers"))


def problem_of(run: Builder) -> Problem:
    """A problem whose proxies are means."""
    identity = jax.tree_util.Partial(lambda x, sigma: x)
    mean = problems.Clean(identity, jnp.zeros(()), jnp.ones(()), jnp.mean)
    sampler = Sampler(karras(4, 0.02, 10.0), (H, run.data.codec.width))
    return Problem(identity, mean, mean, mean, run.data.codec, sampler)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Builder, Problem, dict[str, str]]:
    """A run with every part, the problem with the parts, and their identities."""
    run = builder(tmp_path_factory.mktemp("run"))
    return run, *build.equip(run, problem_of(run), "means", PARTS)


def test_parts_are_made_once_and_read_back(made):
    run, problem, identities = made
    assert {str(path.parent.relative_to(run.run.directory)) for path in run.run.directory.rglob("stage.json")} == STAGES
    assert identities.keys() == PARTS and len(set(identities.values())) == len(PARTS)
    again, same = build.equip(run, problem_of(run), "means", PARTS)
    assert same == identities
    for name in PARTS:
        assert digest(getattr(again, name)) == digest(getattr(problem, name))


def test_parts_are_what_methods_take(made):
    run, problem, _ = made
    x = run.data.train.rows[0, :H]
    plan = run.data.codec.decode(x)
    assert problem.value(x, jnp.asarray(3)).shape == () == problem.conservative.score(x).shape
    after, disagreement = problem.model(jax.random.key(0), plan.observations[0], plan.actions[0])
    assert after.shape == (4,) and disagreement > 0
    assert problem.conditional(x, jnp.ones(()), jnp.zeros(2 + 1 + x.shape[1])).shape == x.shape
    assert problem.behaviour.distribution(plan.observations[0], jnp.zeros(())).centre.shape == (2,)


@pytest.mark.parametrize(("name", "part"), [("value", "value"), ("conditional", "conditional")])
def test_what_the_proxies_score_is_learned_anew_for_other_proxies(made, name, part):
    run, problem, _ = made
    with pytest.raises(RunError, match=rf"{name}: inputs\.proxies was 'means' and is now 'others'; --new-settings"):
        build.equip(run, problem, "others", {part})


def test_a_part_of_other_data_or_settings_is_refused_or_kept_aside(made):
    run, problem, identities = made
    with pytest.raises(RunError, match=r"behaviour: inputs\.data was 'random numbers' and is now 'others'"):
        build.equip(run._replace(data=run.data._replace(identity="others")), problem, "means", {"behaviour"})
    more = replace(CONFIG, dynamics=replace(CONFIG.dynamics, transitions=60))
    with pytest.raises(RunError, match="dynamics: transitions was 50 and is now 60"):
        build.equip(run._replace(config=more), problem, "means", {"model"})
    renewed = run._replace(config=more, run=replace(run.run, new_settings=True))
    assert build.equip(renewed, problem, "means", {"model"})[1] != {"model": identities["model"]}
    assert (run.run.directory / "dynamics.old-1" / "stage.json").exists()
