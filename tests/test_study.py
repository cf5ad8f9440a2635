"""The frame of studies: verdicts follow from intervals, and a study that is done is read back."""

import csv
import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffplan.studies import frame
from diffplan.studies.drawing import draw
from diffplan.studies.frame import Study, StudySettings, above, below

RESULTS = Path(__file__).parents[1] / "results" / "studies"
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("mean", "verdict"), [(1.0, "supported"), (-1.0, "falsified"), (0.02, "inconclusive")])
def test_a_claim_is_judged_by_its_interval(mean, verdict):
    values = mean + 0.1 * RNG.normal(size=8)
    result = above("a claim", values, 0.0)
    assert result.verdict == verdict and result.low < values.mean() < result.high
    opposite = {"supported": "falsified", "falsified": "supported"}.get(verdict, verdict)
    assert below("its opposite", values, 0.0).verdict == opposite


@pytest.mark.parametrize("values", [[3.0], [np.nan, np.nan], [np.nan, 5.0]])
def test_too_few_seeds_are_inconclusive(values):
    assert above("a claim", np.array(values), 0.0).verdict == "inconclusive"


def coins(config):
    for seed in range(config.seeds):
        rng = np.random.default_rng(config.seed + seed)
        for method in ("fair", "loaded"):
            yield {
                "seed": seed,
                "method": method,
                "heads": float((rng.random(400) < {"fair": 0.5, "loaded": 0.7}[method]).mean()),
            }


def judge(table):
    return [
        above("loaded coins fall on heads", frame.by_seed(table, "heads", method="loaded"), 0.6),
        above("fair coins do", frame.by_seed(table, "heads", method="fair"), 0.6),
    ]


COINS = Study("coins", "claim", "expected", "falsifier", 0.1, ("seed", "method", "heads"), coins, judge)


def test_a_study_is_done_once_and_concluded_from_its_table(tmp_path):
    config = StudySettings(run=tmp_path, seeds=4)
    directory = frame.execute(COINS, config)
    findings = frame.conclude(COINS, directory)
    assert [result.verdict for result in findings] == ["supported", "falsified"]

    def never(config):
        raise AssertionError("run again")
        yield

    assert frame.execute(COINS._replace(run=never), config) == directory
    with pytest.raises(AssertionError, match="run again"):
        frame.execute(COINS._replace(run=never), replace(config, seeds=5, new_settings=True))


@pytest.mark.parametrize("name", ["pressure", "held_out_class", "potemkin", "pareto", "matched_proxy"])
def test_one_seed_of_a_study_is_inconclusive_and_drawn(name, tmp_path):
    """The committed table of the study, of which one seed is left."""
    lines = (RESULTS / name / "study.csv").read_text().splitlines()
    seed = lines[0].split(",").index("seed")
    kept = [cells for cells in csv.reader(lines) if cells[seed] in ("seed", "0")]
    with (tmp_path / "study.csv").open("w", newline="") as file:
        csv.writer(file).writerows(kept)
    study = importlib.import_module(f"diffplan.studies.{name}.study").STUDY
    findings = frame.conclude(study, tmp_path)
    assert {finding.verdict for finding in findings} == {"inconclusive"}
    picture = draw(tmp_path, importlib.import_module(f"diffplan.studies.{name}.figure").compose)
    assert picture.stat().st_size > 10_000
