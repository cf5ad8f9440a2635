"""The table of exact answers in short: one line a part, and whose fault what is wasted."""

from pathlib import Path

from diffplan.metrics.table import read_rows

CLAIMS = {
    "order": "error of a stochastic rule falls with its levels at the rule's order (1 and 2)",
    "gaussian": "exact guide, Gaussian: E[r] within 2 %, KL within 5 %, two rules, five weights",
    "mixture": "the same, four modes",
    "tabular": "the same, paths of cells",
    "legality": "no tilted path is illegal at lambda 60",
    "references": "slipping moves: what is planned, what is earned",
    "rules": "five guidance rules on four modes, an earlier table again",
    "budget": "a budget of 4 nats lands within 10 %",
    "particles": "256 particles: E[r] within 2 %, KL within 5 %",
    "coverage": "95 % intervals of log Z cover it in 93 to 97 % of 400 runs",
    "discrete": "discrete diffusion with exact ratios draws the tilt, masked and uniform",
    "prior": "learned prior: legal moves >= 99 %, occupancy within 0.03",
    "attribution": "wasted nats <= 10 % with contrastive energies",
}


def markdown(path: Path) -> str:
    """Both tables of docs/exact.md, from ``exact.csv``."""
    rows = read_rows(path)
    lines = ["| part | what is held against the truth | rows that hold |", "|---|---|--:|"]
    for part in dict.fromkeys(row["part"] for row in rows):
        verdicts = [row["passed"] for row in rows if row["part"] == part and row["passed"]]
        lines.append(f"| `{part}` | {CLAIMS[part]} | {verdicts.count('yes')} of {len(verdicts)} |")
    return "\n".join([*lines, "", *attribution(rows)])


def attribution(rows: list[dict[str, str]]) -> list[str]:
    """Wasted share of nats by prior, guide and weight: lines of a table."""
    prefix = "wasted share of nats, "
    result = [row for row in rows if row["part"] == "attribution" and row["quantity"].startswith(prefix)]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in result:
        prior, guide, weight = row["quantity"].removeprefix(prefix).split(", ")
        fraction, error = (f"{100 * float(row[name]):.0f}" for name in ("measured", "error"))
        cells.setdefault((prior, guide), {})[weight] = f"{fraction} ± {error} %"
    weights = list(dict.fromkeys(weight for line in cells.values() for weight in line))
    header = [f"| prior | guide | {' | '.join(f'wasted, {weight}' for weight in weights)} |"]
    body = [
        f"| {prior.removesuffix(' prior')} | {guide.removesuffix(' guide')} | "
        + " | ".join(line.get(weight, "") for weight in weights)
        + " |"
        for (prior, guide), line in cells.items()
    ]
    return [*header, "|---|---|" + "--:|" * len(weights), *body]
