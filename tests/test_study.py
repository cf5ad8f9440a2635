"""The frame of studies: verdicts follow from intervals, and a study that is done is read back."""

import csv
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffplan.cli import study as cli
from diffplan.metrics.table import TableError
from diffplan.studies import frame
from diffplan.studies.compare import changed, compare
from diffplan.studies.drawing import draw
from diffplan.studies.findings import Sample, above, below, by_seed, mapped
from diffplan.studies.frame import Study, StudySettings

RESULTS = Path(__file__).parents[1] / "results" / "studies"
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("mean", "verdict"), [(1.0, "supported"), (-1.0, "falsified"), (0.02, "inconclusive")])
def test_a_claim_is_judged_by_its_interval(mean, verdict):
    values = mean + 0.1 * RNG.normal(size=8)
    result = above("a claim", values, 0.0)
    assert result.verdict == verdict and result.low < values.mean() < result.high
    opposite = {"supported": "falsified", "falsified": "supported"}.get(verdict, verdict)
    assert below("its opposite", values, 0.0).verdict == opposite


def coins(config):
    for seed in range(config.seeds):
        rng = np.random.default_rng([config.seed, seed])
        for method in ("fair", "loaded"):
            yield {
                "seed": seed,
                "method": method,
                "heads": float((rng.random(400) < {"fair": 0.5, "loaded": 0.7}[method]).mean()),
            }


def judge(table):
    return [
        above("loaded coins fall on heads", by_seed(table, "heads", method="loaded"), 0.6),
        above("fair coins do", by_seed(table, "heads", method="fair"), 0.6),
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


def test_references_have_their_own_number_of_seeds():
    assert StudySettings().references == 64
    assert StudySettings(seeds=2, size=0.1).references == 6
    assert StudySettings(seeds=80).references == 80  # the methods' seeds are among the references'


def flipped(table):
    """The findings on coins, and a claim about both."""
    return [*judge(table), mapped(below, "coins fall on heads", cells_of(table), 0.6)]


def cells_of(table):
    return [Sample({"method": name}, by_seed(table, "heads", method=name)) for name in ("fair", "loaded")]


def test_a_run_on_other_seeds_says_which_verdicts_change(tmp_path):
    """Coins whose odds change places: two findings change and both cells, and not the claim about both."""
    study = COINS._replace(verdict=flipped)
    swap = {"fair": "loaded", "loaded": "fair"}
    other = study._replace(run=lambda config: ({**row, "method": swap[row["method"]]} for row in coins(config)))
    first = frame.execute(study, StudySettings(run=tmp_path / "first", seeds=8))
    before = (first / "verdict.json").read_bytes()
    second = frame.execute(other, StudySettings(run=tmp_path / "other", seeds=8, seed=8))
    result = compare(first, second)
    assert [(one["verdict"], one["other_verdict"]) for one in changed(result.findings)] == [
        ("supported", "falsified"),
        ("falsified", "supported"),
    ]
    assert [one["where"]["method"] for one in changed(result.cells)] == ["fair", "loaded"]
    written = json.loads((first / "verdict_other_seeds.json").read_text())
    assert (written["findings_changed"], written["cells_changed"], len(written["findings"])) == (2, 2, 3)
    assert (first / "verdict.json").read_bytes() == before
    with pytest.raises(TableError, match="holds the same table as"):
        compare(first, first)
    with pytest.raises(TableError, match="missing or of an earlier version"):
        compare(first, tmp_path / "nowhere")


def test_the_command_compares(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "NAMES", ("coins",))
    monkeypatch.setitem(sys.modules, "diffplan.studies.coins.study", SimpleNamespace(STUDY=COINS))
    for where, seed in (("runs/studies", 0), ("runs/other", 8)):
        frame.execute(COINS, StudySettings(run=tmp_path / where, seeds=8, seed=seed))
    arguments = ["compare", "--run", str(tmp_path / "runs/studies"), "--other", str(tmp_path / "runs/other")]
    cli.main(arguments)
    assert "coins: 0 of 2 findings have another verdict" in " ".join(capsys.readouterr().out.split())


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
    verdicts = {kind: {one.verdict for one in findings if one.kind == kind} for kind in ("finding", "check")}
    assert verdicts["finding"] == {"inconclusive"} and verdicts["check"] <= {"passes", "fails"}
    picture = draw(tmp_path, importlib.import_module(f"diffplan.studies.{name}.figure").compose)
    assert picture.stat().st_size > 10_000
