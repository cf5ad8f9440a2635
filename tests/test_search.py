"""Tuning by a fixed number of evaluations, on functions whose best point is known."""

import numpy as np
import pytest

from diffplan.experiment.search import Axes, Setting, search

GRID = (1.0, 3.0, 9.0, 27.0)


def bump(centre: float, gains: tuple[float, ...] = (0.0,)):
    """Highest at a strength, and with the variant of the largest gain."""
    return lambda setting: gains[setting.variant] - np.log(setting.strength / centre) ** 2


@pytest.mark.parametrize("centre", [6.0, 2000.0, 0.003])
def test_the_best_is_found_wherever_it_is(centre):
    outcome = search(bump(centre), Axes(GRID), 16)
    assert outcome.inside
    assert abs(np.log(outcome.best.strength / centre)) < 0.3
    assert len(outcome.values) <= 16


def test_a_range_that_is_not_extended_far_enough_is_said_to_be_open():
    outcome = search(bump(1e6), Axes(GRID), 8)
    assert not outcome.inside and outcome.best.strength == max(setting.strength for setting in outcome.values)


def test_the_best_variant_is_found_and_searched_on():
    outcome = search(bump(20.0, (0.0, 1.0, -1.0)), Axes(GRID, 3), 14)
    assert outcome.best.variant == 1 and outcome.inside
    assert abs(np.log(outcome.best.strength / 20.0)) < 0.3
    assert sum(setting.variant == 2 for setting in outcome.values) == 1


def test_settings_that_are_not_allowed_cost_nothing_and_end_the_range():
    calls = []

    def evaluate(setting):
        calls.append(setting)
        return setting.strength

    outcome = search(evaluate, Axes(GRID), 10, lambda setting: setting.strength <= 20)
    assert outcome.inside and max(setting.strength for setting in calls) <= 20
    assert outcome.best.strength > 15 and len(calls) == len(set(calls)) == len(outcome.values)
    with pytest.raises(ValueError, match="no setting is allowed"):
        search(evaluate, Axes(GRID, 2), 10, lambda setting: False)


def test_whole_numbers_are_tried_once_and_stop_at_one():
    outcome = search(bump(0.4), Axes((1, 2, 4, 8), whole=True), 12)
    assert outcome.best == Setting(1) and outcome.inside
    assert all(setting.strength == int(setting.strength) for setting in outcome.values)
    near = search(bump(3.0), Axes((1, 2, 4, 8), whole=True), 12)
    assert near.best == Setting(3) and len(near.values) < 12  # nothing is left between 2, 3 and 4


def test_a_value_that_is_no_number_is_never_the_best():
    outcome = search(lambda s: np.nan if s.strength > 5 else s.strength, Axes(GRID), 8)
    assert outcome.best.strength <= 5
