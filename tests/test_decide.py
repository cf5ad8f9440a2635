"""Settings that follow from episodes: against processes whose correlation time is known."""

from dataclasses import replace

import numpy as np
import pytest

from diffplan.episodes import Episodes, from_stacked
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import ProxySettings
from diffplan.learn.train import TrainSettings
from diffplan.planner.decide import ROWS, TIMES, Decided, Scales, decide, moved
from diffplan.planner.settings import PlannerSettings
from diffplan.settings import ConfigError
from diffplan.task import Task
from diffplan.tasks import make_task

CONFIG = PlannerSettings()


def autoregressive(factors: tuple[float, ...], episodes: int = 60, steps: int = 400, seed: int = 0) -> Episodes:
    """Stationary AR(1): entry i follows x' = f_i x + sqrt(1 - f_i^2) e, of variance 1."""
    rng, f = np.random.default_rng(seed), np.asarray(factors)
    x = rng.normal(size=(episodes, len(f)))
    rows = []
    for _ in range(steps):
        rows.append(x)
        x = f * x + np.sqrt(1 - f**2) * rng.normal(size=x.shape)
    observations = np.stack(rows, axis=1).astype(np.float32)
    return from_stacked(observations, observations[..., :1])


def memory(factor: float) -> float:
    """Where E (x_t+k - x_t)^2 / 2 = 1 - f^k is a half."""
    return float(np.log(0.5) / np.log(factor))


def ragged(lengths: list[int], seed: int = 0) -> Episodes:
    """AR(1) of factor 0.9 in episodes of these lengths."""
    whole = autoregressive((0.9,), len(lengths), max(lengths), seed)
    inside = np.arange(max(lengths))[None] < np.asarray(lengths)[:, None]
    return whole.rows(inside.reshape(-1), np.asarray(lengths))


def decided(data: Episodes, config: PlannerSettings = CONFIG, **task: int) -> Decided:
    return decide(config, Task.from_episodes(data, "own", **task), data)


# -- the time in which behaviour forgets (134) --


@pytest.mark.parametrize("factor", [0.5, 0.8, 0.93, 0.98])
def test_memory_is_the_time_after_which_half_is_forgotten(factor):
    scales = Scales.of(autoregressive((factor,)))
    assert scales.memory == pytest.approx(memory(factor), rel=0.2, abs=1)
    assert scales.usable == 400


@pytest.mark.parametrize("lag", [1, 7, 40])
def test_what_moved_by_is_one_minus_the_correlation(lag):
    data = autoregressive((0.95,), episodes=200)
    parts = [part.observations for part in data.parts()]
    assert moved(parts, lag) == pytest.approx(1 - 0.95**lag, abs=0.03)


def test_the_slowest_entry_decides_whatever_its_unit():
    data = autoregressive((0.5, 0.97, 0.8))
    alone = Scales.of(data).memory
    assert alone == pytest.approx(memory(0.97), rel=0.15)
    scaled = data._replace(observations=(data.observations * [1e3, 1e-2, 1] + [5, 7, 0]).astype(np.float32))
    assert Scales.of(scaled).memory == alone


def test_the_fastest_entry_bounds_the_stride():
    """Half is forgotten in 346 steps, and 32 rows would be 22 steps apart; the fast entry does so in 13.5."""
    slow, fast = Scales.of(autoregressive((0.998, 0.95), episodes=80, steps=2000)), memory(0.95)
    assert slow.fastest == pytest.approx(fast, rel=0.15) and slow.memory > 10 * fast
    result = decided(autoregressive((0.998, 0.95), episodes=80, steps=2000))
    assert result.stride == slow.fastest // 2 and result.horizon == ROWS
    assert f"its fastest entry changes in {slow.fastest}" in result.reasons["prior.stride"]


def test_entries_that_never_change_within_an_episode_say_nothing():
    """A constant entry, and a goal that each episode draws once, beside an AR(1)."""
    data = autoregressive((0.9,))
    rows = len(data.observations)
    goals = np.repeat(np.random.default_rng(1).normal(size=data.count), data.lengths)
    more = np.column_stack([data.observations[:, 0], np.full(rows, 3.0), goals]).astype(np.float32)
    assert Scales.of(data._replace(observations=more)).memory == Scales.of(data).memory


def test_observations_that_never_change_are_no_obstacle():
    """One observation for all rows, and random actions: a plan is as short as plans are."""
    actions = np.random.default_rng(0).normal(size=(20, 30, 2)).astype(np.float32)
    result = decided(from_stacked(np.ones((20, 30, 1), np.float32), actions))
    assert result.stride == 1 and 2 <= result.horizon <= 30
    assert np.isfinite([result.levels.low, result.levels.high]).all()


# -- horizon and stride --


@pytest.mark.parametrize("factor", [0.8, 0.93, 0.98, 0.99])
def test_a_plan_has_32_rows_and_spans_two_such_times(factor):
    """Half is forgotten in 3, 10, 34 and 69 steps, give or take a seventh: 1, 1, 2 to 3 and 4 to 5 steps to a row."""
    result = decided(autoregressive((factor,)))
    span = TIMES * memory(factor)
    assert result.horizon == ROWS
    assert max(1, 0.85 * span / ROWS) <= result.stride <= 1.15 * span / ROWS + 1


def test_slow_behaviour_has_rows_a_stride_apart():
    """Half is forgotten in 346 steps: 692 steps are 32 rows of 22 steps."""
    result = decided(autoregressive((0.998,), episodes=80, steps=2000))
    assert result.horizon <= ROWS and 17 <= result.stride <= 27
    assert result.horizon * result.stride == pytest.approx(TIMES * memory(0.998), rel=0.3)
    assert "prior.stride" in result.reasons


def test_short_ragged_episodes_bound_the_plan():
    """A few that are far shorter than the others are left out: 95 % of these hold 20 steps."""
    lengths = [20, 25, 30, 22, 28] * 19 + [3] * 5
    scales = Scales.of(ragged(lengths))
    assert scales.usable == 20
    result = decided(ragged(lengths))
    assert (result.horizon, result.stride) == (16, 1)
    assert Scales.of(ragged([20, 25, 30, 22, 28])).usable == 20


@pytest.mark.parametrize(("length", "horizon"), [(2, 2), (3, 3), (5, 4), (9, 8), (15, 12)])
def test_tiny_episodes_have_tiny_plans(length, horizon):
    """Fewer rows than two patches: rounded to what they can be cut into; each still holds a window."""
    data = autoregressive((0.99,), 50, length)
    result = decided(data)
    assert result.horizon == horizon and result.stride == 1
    for name in ("prior", "proxy", "value", "conditional"):
        assert result.horizon % getattr(result.config, name).patch == 0


def test_a_gridworld_is_planned_in_steps():
    task = make_task("gridworld-fourrooms", episodes=40, steps=200)
    result = decide(CONFIG, task, task.episodes())
    assert (result.horizon, result.stride) == (ROWS, 1)


# -- what is asked for --


def test_explicit_settings_win_over_the_tasks_and_these_over_the_episodes():
    data = autoregressive((0.9,))
    asked = replace(CONFIG, prior=replace(CONFIG.prior, horizon=40, stride=2), noise=replace(CONFIG.noise, low=0.5))
    result = decided(data, asked, horizon=24, stride=3)
    assert (result.horizon, result.stride, result.levels.low) == (40, 2, 0.5)
    assert set(result.reasons) == {"noise.high", "prior.train.steps"} - (
        set() if result.config.prior.train.steps < CONFIG.prior.train.steps else {"prior.train.steps"}
    )
    result = decided(data, horizon=24, stride=3)
    assert (result.horizon, result.stride) == (24, 3) and "prior.horizon" not in result.reasons
    assert decided(data, horizon=24).stride == 1


def test_what_is_decided_is_written_into_the_settings():
    result = decided(autoregressive((0.9,)))
    prior = result.config.prior
    assert (prior.horizon, prior.stride) == (result.horizon, result.stride)
    assert prior.train.steps == min(CONFIG.prior.train.steps, 400 * (24_000 // result.horizon) // prior.train.batch)


@pytest.mark.parametrize(("horizon", "patch"), [(20, 2), (22, 2), (7, 1), (13, 1)])
def test_patches_become_the_largest_that_divide_the_horizon(horizon, patch):
    result = decided(autoregressive((0.9,)), horizon=horizon)
    assert {getattr(result.config, name).patch for name in ("proxy", "value", "conditional")} == {patch}
    assert ("proxy.patch" in result.reasons) == (patch != 2)


def test_an_impossible_horizon_is_refused_by_name():
    data = ragged([50, 40, 45])
    too_long = replace(CONFIG, prior=PriorSettings(horizon=56))
    with pytest.raises(ConfigError, match=r"prior\.horizon=56 .*at most 50: the longest of 3 episodes has 50 steps"):
        decided(data, too_long)
    spread = replace(CONFIG, prior=PriorSettings(horizon=24, stride=3))
    with pytest.raises(ConfigError, match=r"prior\.horizon=24 with prior\.stride=3: must be at most 16"):
        decided(data, spread)
    with pytest.raises(ConfigError, match=r"prior\.horizon=36: must be a multiple of 8"):
        PriorSettings(network="mixer", patch=8, horizon=36)
    with pytest.raises(ConfigError, match=r"prior\.horizon=24: must be a multiple of proxy\.patch \(16\)"):
        PlannerSettings(prior=PriorSettings(horizon=24), proxy=ProxySettings(patch=16))
    for bad in (0, 1, -8):
        with pytest.raises(ConfigError, match=r"prior\.horizon=-?\d: must be"):
            PriorSettings(horizon=bad)


# -- training and noise --


def test_training_stops_after_so_many_passes():
    """100 windows that do not overlap, in batches of 10, 30 times: 300 steps; never fewer than 100."""
    data = autoregressive((0.9,), 10, 160)
    asked = lambda passes, steps: replace(
        CONFIG, prior=PriorSettings(TrainSettings(steps=steps, batch=10), horizon=16, passes=passes)
    )
    result = decided(data, asked(30.0, 5000))
    assert result.config.prior.train.steps == 300
    assert "300, for 30 passes over 100 windows" in result.reasons["prior.train.steps"]
    assert decided(data, asked(30.0, 200)).config.prior.train.steps == 200
    assert decided(data, asked(0.5, 5000)).config.prior.train.steps == 100


def test_noise_goes_from_half_a_step_to_beyond_all_entries():
    """A smooth sine wave: steps of 2 pi / period of its amplitude; an outlier raises the highest level."""
    time = np.arange(400)
    wave = np.stack([np.sin(2 * np.pi * (time + shift) / 400) for shift in range(0, 400, 20)])[..., None]
    data = from_stacked(wave.astype(np.float32), wave.astype(np.float32))
    scales = Scales.of(data)
    step = np.median(np.abs(2 * np.pi / 400 * np.cos(2 * np.pi * time / 400))) * np.sqrt(2)
    assert scales.step == pytest.approx(step, rel=0.02)
    assert scales.largest == pytest.approx(np.sqrt(2), rel=0.01)
    levels = decided(data).levels
    assert levels.low == pytest.approx(step / 2, rel=0.03) and levels.high == 10.0
    far = data.observations.copy()
    far[::100] = 30  # one row in a hundred
    assert decided(data._replace(observations=far)).levels.high > 15


def test_every_decision_has_a_reason_with_its_number():
    result = decided(autoregressive((0.9,)))
    assert {"prior.horizon", "prior.stride", "noise.low", "noise.high"} <= set(result.reasons)
    numbers = {"prior.horizon": result.horizon, "prior.stride": result.stride, "noise.low": result.levels.low}
    for name, value in numbers.items():
        assert result.reasons[name].startswith(f"{value:g}: ") and "\n" not in result.reasons[name]


def test_priors_whose_parameters_are_no_matrices_are_trained_by_adam_unless_asked_otherwise():
    data = autoregressive((0.9,))
    by = lambda result: (result.config.prior.train.optimiser, result.config.prior.train.learning_rate)
    with_network = lambda network, **more: replace(CONFIG, prior=PriorSettings(network=network, **more))
    assert by(decided(data, with_network("chain"))) == ("muon", 5e-2)
    unet = decided(data, with_network("unet"))
    assert by(unet) == ("adam", 2e-4) and unet.reasons["prior.train"] == "Adam at a rate of 0.0002: unet"
    asked = with_network("unet", train=TrainSettings(steps=100, learning_rate=1e-3))
    assert by(decided(data, asked)) == ("adam", 1e-3)
    rooms = make_task("gridworld-fourrooms", episodes=40, steps=200)
    decided_rooms = decide(CONFIG, rooms, rooms.episodes())
    assert (
        by(decided_rooms)
        == ("adam", 2e-3)
        == (
            decided_rooms.config.conditional.train.optimiser,
            decided_rooms.config.conditional.train.learning_rate,
        )
    )
    assert decided(data, with_network("chain")).config.conditional.train.optimiser == "muon"


def test_a_chain_has_at_most_a_state_for_every_eight_rows():
    asked = replace(CONFIG, prior=PriorSettings(states=512))
    few = decided(autoregressive((0.9,), 10, 160), asked)
    assert few.config.prior.states == 200 and "of 1600 rows" in few.reasons["prior.states"]
    assert "prior.states" not in decided(autoregressive((0.9,), 40, 200), asked).reasons


@pytest.mark.parametrize(
    ("states", "episodes", "clones", "reason"),
    [(512, 40, 4, "416: 4 for each of 104 cells"), (50, 40, 1, "104: 1 for each"), (512, 10, 2, "of 2000 rows")],
)
def test_every_cell_has_as_many_states_as_any_other(states, episodes, clones, reason):
    rooms = make_task("gridworld-fourrooms", episodes=episodes, steps=200)
    made = decide(replace(CONFIG, prior=replace(CONFIG.prior, states=states)), rooms, rooms.episodes())
    assert made.config.prior.states == 104 * clones and reason in made.reasons["prior.states"]


def test_one_hot_plans_have_twice_as_many_levels_unless_somebody_chose():
    rooms, data = make_task("gridworld-fourrooms", episodes=8), autoregressive((0.9, 0.9))
    chosen = lambda config: decide(config, rooms, data).config.sampler.steps
    assert chosen(CONFIG) == 24 == 2 * CONFIG.sampler.steps
    assert chosen(replace(CONFIG, sampler=replace(CONFIG.sampler, steps=9))) == 9
    assert decided(data).config.sampler == CONFIG.sampler
