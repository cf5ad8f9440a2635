"""The rows of a benchmark as a table in Markdown."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TIMES = ("what", "median s", "min to max s", "a second", "first call s", "delivered", "feasible", "beside")
PROCESSES = ("what", "s", "MB at most", "MB grown")


def markdown(path: Path, parts: Iterable[str]) -> str:
    """The rows of some parts of a ``bench.json``: times, or processes. A column without an entry is left out."""
    chosen = set(parts)
    rows = [row for row in json.loads(path.read_text())["rows"] if row["part"] in chosen]
    names, cells = (PROCESSES, of_process) if "median_s" not in rows[0] else (TIMES, of_times)
    lines = [*map(cells, rows)]
    kept = [k for k in range(len(names)) if any(line[k] != "–" for line in lines)]
    lines = [[line[k] for k in kept] for line in (names, ("---", *["--:"] * (len(names) - 1)), *lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of_times(row: dict[str, Any]) -> tuple[str, ...]:
    """Cells of a row that was timed."""
    ends = f"{row['min_s']:.3g} to {row['max_s']:.3g}"
    delivered = row.get("delivered")
    plans = (
        "–" if delivered is None else f"{delivered:.1f}",
        f"{100 * row['feasible']:.1f} %" if "feasible" in row else "–",
    )
    beside = f"{row['over_jax']:.2f} x jax" if "over_jax" in row else ""
    beside = f"{100 * row['used']:.0f} % used" if "used" in row else beside
    what = f"{row['what']}, {row['who']}" if "who" in row else row["what"]
    rate = f"{row['per_second']:,.0f}" if row["per_second"] < 1e8 else f"{row['per_second'] / 1e9:.3g} G"
    return what, f"{row['median_s']:.3g}", ends, rate, f"{row['first_call_s']:.2g}", *plans, beside or "–"


def of_process(row: dict[str, Any]) -> tuple[str, ...]:
    """Cells of a row of a process."""
    grown = f"{row['grown']:.0f}" if "grown" in row else "–"
    return row["what"], f"{row['seconds']:.1f}", f"{row['megabytes']:,.0f}", grown
