"""Files that say what the crossed comparison found: tests.csv, summary.csv, verdict.json, figure.png."""

from pathlib import Path

from diffplan.metrics import table
from diffplan.report.save import save
from diffplan.runs.files import write_json
from diffplan.studies.crossed import analysis
from diffplan.studies.crossed.analysis import Difference
from diffplan.studies.crossed.figure import compose
from diffplan.studies.crossed.protocol import BUDGETS, CLAIMS, INFORMED, LEVEL, METHODS, REFERENCE


def verdicts(tests: list[Difference]) -> list[str]:
    """Of each claim: supported, falsified, or not decided."""
    at = {(each.name, each.budget): each for each in tests}
    rivals = [name for name in METHODS if name not in (REFERENCE, *INFORMED)]
    ahead = any(at[name, budget].verdict == "more" for name in rivals for budget in BUDGETS)
    behind = all(at[name, budget].verdict == "less" for name in rivals for budget in BUDGETS)
    ascent = [at["ascent_prior", budget].verdict for budget in BUDGETS]
    words = {"more": "supported", "less": "falsified"}
    rest = [each.verdict for each in tests if each.name not in METHODS]
    first = "falsified" if ahead else "supported" if behind else "not falsified; not every difference is shown"
    second = "supported" if set(ascent) == {"less"} else "falsified" if "more" in ascent else "not decided"
    return [first, second, *(words.get(verdict, "not decided") for verdict in rest)]


def write(directory: Path) -> list[Difference]:
    """Write the files beside rows.csv, and return the tests.

    Raises:
        ValueError: if there are too few rows.
    """
    rows = list(table.read_rows(directory / "rows.csv"))
    tests = analysis.tests_of(rows)
    fields = ("name", "budget", "mean", "low", "high", "p", "cells", "verdict")
    clusters = sorted({name for each in tests for name in each.clusters})
    lines = [{name: getattr(each, name) for name in fields} | each.clusters for each in tests]
    table.write(directory / "tests.csv", lines, (*fields, *clusters))
    summary = analysis.summary(rows)
    table.write(directory / "summary.csv", summary, tuple(summary[0]))
    claims = [{"claim": claim, "verdict": verdict} for claim, verdict in zip(CLAIMS, verdicts(tests), strict=True)]
    write_json(directory / "verdict.json", {"level": LEVEL, "tests": len(tests), "claims": claims})
    save(directory / "figure.png", lambda: compose(rows, tests))
    return tests
