"""The notebook runs from top to bottom, without a word on stderr; so does the marimo app, where marimo is installed."""

import ast
import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

import diffplan as dp
from diffplan.planner.presets import settings_of
from diffplan.report import load as reading
from diffplan.report import space

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NOTEBOOK = NOTEBOOKS / "01_three_equations.ipynb"
APP = NOTEBOOKS / "live.py"


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own, as a reader would run it; its asserts compare with the closed forms."""
    from nbclient import NotebookClient

    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    where = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute(env=dict(os.environ))
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    assert cells
    for cell in cells:
        assert cell.outputs == [] and cell.execution_count is None
        compile(cell.source, str(NOTEBOOK), "exec")


def test_the_app_compiles_and_imports_nothing_but_marimo_at_its_top() -> None:
    tree = ast.parse(APP.read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [alias.name for node in top for alias in node.names] == ["marimo"]


@pytest.mark.slow
def test_the_app_draws_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells, with the planner that ships, since nothing is trained in a fresh checkout."""
    pytest.importorskip("marimo")
    monkeypatch.chdir(tmp_path)
    app = runpy.run_path(str(APP))["app"]
    _, result = app.run()
    assert isinstance(result["figure"], Figure)
    assert result["figure"].axes[0].collections
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_app_reads_the_run_of_its_user_and_leaves_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior that was made with settings of one's own is used as it is: nothing is trained, written or moved."""
    cells: dict[int, Callable] = {}
    keep = lambda cell: cells.setdefault(len(cells), cell)
    monkeypatch.setitem(sys.modules, "marimo", SimpleNamespace(App=lambda **_: SimpleNamespace(cell=keep)))
    monkeypatch.chdir(tmp_path)
    debug = settings_of("debug")
    own = replace(debug, prior=replace(debug.prior, width=24, horizon=16, stride=1))
    made = dp.Planner.fit(dp.make_task("maze2d-umaze"), settings=own)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    runpy.run_path(str(APP))
    (planner,) = cells[1](Path, dp)
    scale, seed = SimpleNamespace(value=3.0), SimpleNamespace(value=0)
    (figure,) = cells[3](Figure, jax, np, planner, reading, scale, seed, space)
    assert figure.axes[0].get_title().startswith("scale 3: promised ")
    assert planner.settings == made.settings and planner.settings.prior.width == 24
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
