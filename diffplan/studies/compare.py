"""Which verdicts of a study change on other seeds.

    diffplan study run potemkin --seed 8 --run runs/other
    diffplan study compare potemkin --other runs/other

reads verdict.json of both runs, and writes verdict_other_seeds.json beside the first one's.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from diffplan.metrics.table import TableError
from diffplan.runs.files import read_json, write_json

Entry = dict[str, Any]


class Comparison(NamedTuple):
    """Findings and cells, each with the verdicts, estimates and numbers of seeds of both runs."""

    findings: list[Entry]
    cells: list[Entry]


def changed(entries: list[Entry]) -> list[Entry]:
    """Those whose verdicts differ."""
    return [one for one in entries if one["verdict"] != one["other_verdict"]]


def compare(directory: Path, other: Path) -> Comparison:
    """Compare the verdicts of one study in two directories, and write verdict_other_seeds.json in the first.

    Raises:
        TableError: if a verdict is not there, if the two tables are the same, or if the findings are not the same ones.
    """
    first, second = verdict_of(directory), verdict_of(other)
    if (directory / "study.csv").read_bytes() == (other / "study.csv").read_bytes():
        raise TableError(f"{other}: holds the same table as {directory}; run the study with another --seed there")
    findings = list(paired(first["findings"], second["findings"]))
    cells = list(paired(list(cells_of(first)), list(cells_of(second))))
    counts = {"findings_changed": len(changed(findings)), "cells_changed": len(changed(cells)), "cells": len(cells)}
    content = {"study": first["study"], **counts, "findings": findings, "changed_cells": changed(cells)}
    write_json(directory / "verdict_other_seeds.json", content)
    return Comparison(findings, cells)


def verdict_of(directory: Path) -> dict[str, Any]:
    """The verdict of a directory."""
    verdict = read_json(directory / "verdict.json")
    if verdict is None or "maps" not in verdict:
        raise TableError(f"{directory / 'verdict.json'}: missing or of an earlier version; see diffplan study run")
    return verdict


def cells_of(verdict: dict[str, Any]) -> Iterator[Entry]:
    """The cells of all maps, each with the statement of its map."""
    for one in verdict["maps"]:
        yield from ({"statement": one["statement"]} | cell for cell in one["cells"])


def about(entry: Entry) -> Entry:
    """What a finding or a cell is about, without its numbers."""
    return {name: entry[name] for name in ("statement", "where") if name in entry}


def paired(first: list[Entry], second: list[Entry]) -> Iterator[Entry]:
    """The verdicts and estimates of both, entry by entry.

    Raises:
        TableError: if the two are not about the same things.
    """
    if [about(one) for one in first] != [about(one) for one in second]:
        raise TableError("the two verdicts are not about the same findings; make both with the same version")
    for one, other in zip(first, second, strict=True):
        numbers = [{name: one[name], f"other_{name}": other[name]} for name in ("verdict", "estimate", "n")]
        yield about(one) | {name: value for both in numbers for name, value in both.items()}
