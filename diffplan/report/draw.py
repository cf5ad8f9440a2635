"""Everything that is drawn from a run, at once."""

from pathlib import Path

from diffplan.report import axes, budgets, figure, page, record


def draw(run_dir: Path | str, out: Path | str | None = None) -> list[Path]:
    """Writes tables, figures and the page into the run directory, or into `out`.

    Args:
        run_dir: directory with results.csv, config.json, plans.npz and data.npz; it is only read if `out` is given.
        out: another directory to write into; it is made if it is missing.

    Returns:
        The files: summary.csv, budgets.csv, frontier.png and .pdf, axes.png and .pdf (if there is any method but the
        prior), report.html.

    Raises:
        TableError: in one line, for a file or a field that is missing or damaged.
    """
    tables = [record.record(run_dir, out), budgets.write(run_dir, out)]
    return [*tables, *figure.frontier(run_dir, out), *axes.axes_figure(run_dir, out), page.page(run_dir, out)]
