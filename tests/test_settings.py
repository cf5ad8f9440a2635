"""Settings: what cannot work is refused in one line that names the field, its value and what is allowed."""

import math
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from diffplan.cli.experiment import experiment
from diffplan.experiment import presets as comparing
from diffplan.experiment.settings import DEMO_METHODS, ExperimentSettings
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import ProxySettings
from diffplan.learn.train import TrainSettings
from diffplan.learn.value import ValueSettings
from diffplan.methods import Guided, chosen
from diffplan.methods.strengths import StrengthSettings
from diffplan.noise import NoiseSettings
from diffplan.planner import presets as learning
from diffplan.planner.settings import NoiseRange, PlannerSettings
from diffplan.resolve import resolve
from diffplan.runs.files import content
from diffplan.samplers import STEPS, SamplerSettings, heun
from diffplan.settings import COUNT, FRACTION, INSIDE, SEED, SIZE, ConfigError, at_least, more_than, require, settings
from diffplan.tasks import TASKS, source
from diffplan.tasks.gridworld import GridworldSettings
from diffplan.tasks.linear import LinearSettings
from diffplan.tasks.maze2d import Maze2dSettings


@settings("part")
class Part:
    """One field of each kind."""

    count: Annotated[int, COUNT] = 1
    rate: Annotated[float, more_than(0, 1)] = 0.5
    pair: Annotated[tuple[float, float], at_least(0)] = (1, 2.0)
    many: tuple[str, ...] = ()
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    name: str = ""
    path: Path = Path(".")
    maybe: Annotated[int | None, at_least(1)] = None


BAD = [
    ({"count": 0}, "part.count=0: must be at least 1"),
    ({"count": 1.5}, "part.count=1.5: must be a whole number"),
    ({"count": True}, "part.count=True: must be a whole number"),
    ({"count": "3"}, "part.count='3': must be a whole number"),
    ({"count": None}, "part.count=None: must be a whole number"),
    ({"count": 10**30}, f"part.count={10**30}: must be a whole number of at most 64 bits"),
    ({"count": 2**63}, f"part.count={2**63}: must be a whole number of at most 64 bits"),
    ({"rate": 0.0}, "part.rate=0.0: must be between 0 and 1, neither of them"),
    ({"rate": 1}, "part.rate=1: must be between 0 and 1, neither of them"),
    ({"rate": math.nan}, "part.rate=nan: must be finite"),
    ({"rate": math.inf}, "part.rate=inf: must be finite"),
    ({"rate": 10**400}, f"part.rate={10**400}: must be a whole number of at most 64 bits"),
    ({"rate": "x"}, "part.rate='x': must be a number"),
    ({"pair": (1.0, -2.0)}, "part.pair=-2.0: must be at least 0"),
    ({"pair": (1.0, math.nan)}, "part.pair=nan: must be finite"),
    ({"pair": (1.0,)}, "part.pair=(1.0,): must be 2 values"),
    ({"pair": 3.0}, "part.pair=3.0: must be several values"),
    ({"many": "abc"}, "part.many='abc': must be several values"),
    ({"many": ("a", 3)}, "part.many=3: must be a text"),
    ({"kind": "c"}, "part.kind='c': must be one of a, b"),
    ({"flag": 1}, "part.flag=1: must be true or false"),
    ({"name": 3}, "part.name=3: must be a text"),
    ({"path": "x"}, "part.path='x': must be a path"),
    ({"path": Path("~no-such-user/x")}, r"part.path='~no-such-user/x': must be a path \(.*\)"),
    ({"maybe": 0}, "part.maybe=0: must be at least 1"),
]


@pytest.mark.parametrize(("values", "line"), BAD, ids=[line[:40].split(":")[0] for _, line in BAD])
def test_every_kind_of_field_is_checked(values, line):
    with pytest.raises(ConfigError) as error:
        Part(**values)
    message = str(error.value)
    assert message == line or re.fullmatch(line, message)


def test_what_is_allowed_is_kept_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "home")
    part = Part(np.int64(3), 1e-9, (0, 1.5), ("x",), "b", True, "n", Path("~/x"), 7)
    assert part == Part(3, 1e-9, (0.0, 1.5), ("x",), "b", True, "n", Path("home/x"), 7)
    assert part.maybe == 7 and Part().maybe is None and isinstance(part.pair[0], int)
    assert Part(rate=np.float32(0.25)).rate == 0.25
    with pytest.raises(FrozenInstanceError):
        part.count = 4  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match=r"^part.count=-1: must be at least 1$"):
        replace(part, count=-1)


def test_bounds_hold_or_shut_out_their_ends():
    assert [at_least(1, 3).allows(x) for x in (0.9, 1, 3, 3.1)] == [False, True, True, False]
    assert [more_than(1, 3).allows(x) for x in (1, 1.1, 2.9, 3)] == [False, True, True, False]
    assert at_least(2).allows(math.inf) and not at_least(2).allows(math.nan)
    assert [str(bound) for bound in (COUNT, FRACTION, INSIDE, more_than(0))] == [
        *("at least 1", "between 0 and 1", "between 0 and 1, neither of them", "more than 0")
    ]


def test_a_class_may_check_several_fields():
    @settings("")
    class Pair:
        low: int = 0
        high: int = 1

        def check(self) -> None:
            """Order."""
            require(self.low < self.high, "low", self.low, f"below high ({self.high})")

    assert Pair(1, 2).low == 1
    with pytest.raises(ConfigError, match=r"^low=3: must be below high \(2\)$"):
        Pair(3, 2)


PARTS = {
    **dict.fromkeys(("prior.width", "prior.depth", "prior.patch"), PriorSettings),
    **dict.fromkeys(("proxy.width", "proxy.depth", "proxy.patch"), ProxySettings),
    **dict.fromkeys(("value.width", "value.depth", "value.patch"), ValueSettings),
    **dict.fromkeys(("conditional.width", "conditional.depth", "conditional.patch"), ConditionalSettings),
}


@pytest.mark.parametrize("field", PARTS)
@pytest.mark.parametrize("value", [0, -1, -(10**30), 10**30, 10**9])
def test_no_network_has_an_impossible_size(field, value):
    with pytest.raises(ConfigError, match=f"^{field}={value!r}: must be "):
        PARTS[field](**{field.partition(".")[2]: value})


REFUSED = [
    (Maze2dSettings, {"episodes": 1}, "task.episodes=1: must be between 2 and 10000000"),
    (Maze2dSettings, {"steps": 1}, "task.steps=1: must be between 2 and 10000000"),
    (Maze2dSettings, {"radius": 0.0}, "task.radius=0.0: must be more than 0"),
    (Maze2dSettings, {"centre": (math.nan, 0.0)}, "task.centre=nan: must be finite"),
    (GridworldSettings, {"slip": 1.1}, "task.slip=1.1: must be between 0 and 1"),
    (LinearSettings, {"noise": -0.1}, "task.noise=-0.1: must be at least 0"),
    (LinearSettings, {"seed": -1}, "task.seed=-1: must be between 0 and 4294967295"),
    (TrainSettings, {"steps": 0}, "train.steps=0: must be at least 1"),
    (TrainSettings, {"steps": 1, "save_every": 0}, "train.save_every=0: must be at least 1"),
    (TrainSettings, {"steps": 1, "learning_rate": 0.0}, "train.learning_rate=0.0: must be more than 0"),
    (TrainSettings, {"steps": 1, "learning_rate": math.nan}, "train.learning_rate=nan: must be finite"),
    (TrainSettings, {"steps": 1, "ema": 1.0}, "train.ema=1.0: must be between 0 and 1"),
    (TrainSettings, {"steps": 1, "warmup": -1}, "train.warmup=-1: must be at least 0"),
    (NoiseSettings, {"low": 0.0}, "noise.low=0.0: must be more than 0"),
    (NoiseSettings, {"high": 0.01}, "noise.low=0.02: must be below noise.high (0.01)"),
    (NoiseRange, {"low": 0.0}, "noise.low=0.0: must be more than 0"),
    (NoiseRange, {"low": 3.0, "high": 2.0}, "noise.low=3.0: must be below noise.high (2.0)"),
    (PriorSettings, {"horizon": 0}, "prior.horizon=0: must be between 2 and 1048576"),
    (PriorSettings, {"horizon": -8}, "prior.horizon=-8: must be between 2 and 1048576"),
    (PriorSettings, {"horizon": 1, "patch": 1}, "prior.horizon=1: must be between 2 and 1048576"),
    (PriorSettings, {"horizon": 33, "network": "mixer", "patch": 8}, "prior.horizon=33: must be a multiple of 8"),
    (PriorSettings, {"horizon": 30, "network": "unet"}, "prior.horizon=30: must be a multiple of 4"),
    (PriorSettings, {"stride": 0}, "prior.stride=0: must be between 1 and 1048576"),
    (PriorSettings, {"passes": 0.0}, "prior.passes=0.0: must be more than 0"),
    (PriorSettings, {"goal_fraction": 1.1}, "prior.goal_fraction=1.1: must be between 0 and 1"),
    (PriorSettings, {"held_out": 1.0}, "prior.held_out=1.0: must be between 0 and 1, neither of them"),
    (ProxySettings, {"labels": 1}, "proxy.labels=1: must be between 2 and 16777216"),
    (ProxySettings, {"quantile": 2.0}, "proxy.quantile=2.0: must be between 0 and 1, neither of them"),
    (SamplerSettings, {"steps": 1}, "sampler.steps=1: must be between 2 and 1000000"),
    (StrengthSettings, {"points": 0}, "strengths.points=0: must be between 1 and 10000"),
    (StrengthSettings, {"refine": -1}, "strengths.refine=-1: must be between 0 and 10000"),
    (StrengthSettings, {"scale": (3, 1)}, "strengths.scale=(3, 1): must be two numbers, the smaller first"),
    (StrengthSettings, {"pool": 0}, "strengths.pool=0: must be at least 1"),
    (StrengthSettings, {"ascent_rate": 0.0}, "strengths.ascent_rate=0.0: must be more than 0"),
    (ExperimentSettings, {"seeds": 0}, "seeds=0: must be between 1 and 100000"),
    (ExperimentSettings, {"plans": 1}, "plans=1: must be between 2 and 16777216"),
    (ExperimentSettings, {"replans": 0}, "replans=0: must be between 1 and 10000"),
    (ExperimentSettings, {"reference": 1}, "reference=1: must be between 2 and 16777216"),
    (ExperimentSettings, {"methods": ("guided", "gided")}, "methods='gided': must be one of all, prior, guided"),
]


@pytest.mark.parametrize(("kind", "values", "line"), REFUSED, ids=[line.split(":")[0] for _, _, line in REFUSED])
def test_a_value_that_cannot_work_is_refused_in_one_line(kind, values, line):
    with pytest.raises(ConfigError) as error:
        kind(**values)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_the_widest_values_are_allowed():
    TrainSettings(steps=1, batch=1, warmup=0, ema=0.0, chunk=1, save_every=1, seed=2**32 - 1)
    PriorSettings(goal_fraction=0.0, horizon=2, patch=1, width=1, depth=1)
    StrengthSettings(points=1, refine=0, pool=1, ascent_steps=1)
    Maze2dSettings(episodes=2, steps=2, noise=0.0)
    assert SIZE.allows(1) and SEED.allows(0)


def test_horizons_must_suit_every_network():
    """36 suits a prior of any row, and no reward model with a patch of 8."""
    with pytest.raises(ConfigError, match=r"^prior.horizon=36: must be a multiple of proxy.patch \(8\)$"):
        PlannerSettings(prior=PriorSettings(horizon=36), proxy=ProxySettings(patch=8))
    settings = PlannerSettings(prior=PriorSettings(horizon=36), proxy=ProxySettings(patch=4))
    assert settings.prior.horizon == 36  # the patches of values and conditional priors follow (`planner.decide`)


def test_horizon_and_noise_levels_that_nobody_chose_are_left_to_the_episodes():
    """A horizon that is not known yet is divided by no patch; one end of the noise may be chosen without the other."""
    assert PriorSettings(patch=7).horizon is None and PriorSettings().stride is None
    assert PlannerSettings(proxy=ProxySettings(patch=3)).prior.horizon is None
    assert NoiseRange() == NoiseRange(None, None)
    assert NoiseRange(low=100.0).high is None and NoiseRange(high=0.001).low is None


def test_presets_differ_in_size_alone():
    """Demo is the default; debug is smaller in everything that takes time; full has every method there is."""
    demo, debug, full, accelerator = comparing.PRESETS.values()
    assert demo == ExperimentSettings() and demo.methods == DEMO_METHODS == debug.methods == accelerator.methods
    assert {entry.name for entry in chosen(full.strengths, full.methods)} == chosen_names(("all",))
    for name in ("seeds", "plans", "replans", "reference"):
        assert getattr(debug, name) < getattr(demo, name)
    assert accelerator.plans > demo.plans
    assert comparing.PRESETS.keys() == learning.PRESETS.keys()
    demo, debug, full, accelerator = learning.PRESETS.values()
    assert demo == PlannerSettings() == full and accelerator.prior.width > demo.prior.width
    parts = (
        *("prior", "proxy", "row_reward", "inverse", "dynamics", "value", "behaviour", "conditional", "contrastive"),
        "flow_map",
    )
    for name in parts:
        small, usual = getattr(debug, name), getattr(demo, name)
        assert small.train.steps < usual.train.steps and small.width < usual.width


def chosen_names(methods) -> set[str]:
    return {entry.name for entry in chosen(StrengthSettings(), methods)}


@pytest.mark.parametrize("name", TASKS)
def test_every_world_that_ships_has_settings_which_debug_makes_smaller(name):
    whole, small = experiment(name), experiment(name, "debug")
    assert (whole.name, whole.preset, small.preset) == (name, "demo", "debug")
    assert whole.task == source(name).settings and small.experiment == comparing.PRESETS["debug"]
    assert small.planner == learning.PRESETS["debug"]
    assert small.task.episodes == 40 and 2 <= small.task.steps <= 500
    others = {key: value for key, value in vars(small.task).items() if key not in ("episodes", "steps")}
    assert others.items() <= vars(whole.task).items()


def test_an_experiment_without_such_a_preset_or_task_is_refused():
    with pytest.raises(ConfigError, match=r"^preset='smoke': must be one of demo, debug, full, accelerator$"):
        experiment("linear-point", "smoke")
    with pytest.raises(ConfigError, match=r"^task='maze3d': must be one of maze2d-open, .*; or a data file"):
        experiment("maze3d")


def test_networks_rules_and_methods_may_be_objects():
    """In Python a thing itself stands where a flag has its name; what is neither is refused."""

    def network(key, horizon, dim, size):
        return key, horizon

    own = Guided("own", (0.0, 1.0))
    config = PlannerSettings(prior=PriorSettings(network=network), sampler=SamplerSettings(rule=heun))
    compared = ExperimentSettings(methods=("guided", own))
    names = [entry.name for entry in chosen(compared.strengths, compared.methods)]
    assert names == ["prior", "guided", "null_noise", "null_shuffled", "own"]
    assert resolve(config.sampler.rule, STEPS, "rule") is heun and config.prior.network is network
    assert content(config)["sampler"]["rule"] == "diffplan.samplers:heun"
    assert resolve("diffplan.samplers:heun", {}, "rule") is heun
    with pytest.raises(ConfigError, match=r"sampler\.rule=3: must be a name, file\.py:NAME, or the thing itself"):
        SamplerSettings(rule=3)
