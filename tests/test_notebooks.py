"""The notebook runs from top to bottom, without a word on stderr; so does the marimo app, where marimo is installed."""

import ast
import os
import runpy
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from diffplan.cli.experiment import experiment, load

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
    """All cells, on a prior and proxies of a few steps, since nothing is trained in a fresh checkout."""
    pytest.importorskip("marimo")
    from matplotlib.figure import Figure

    monkeypatch.chdir(tmp_path)
    debug = experiment("maze2d-umaze", "debug")
    short = replace(debug.planner.proxy.train, steps=2)
    prior = replace(debug.planner.prior, train=short, horizon=32, stride=1)
    settings = replace(debug.planner, prior=prior, proxy=replace(debug.planner.proxy, train=short))
    tiny = replace(debug, planner=settings)
    app = runpy.run_path(str(APP))["app"]
    _, result = app.run(defs={"config": tiny})
    assert isinstance(result["figure"], Figure)
    assert result["figure"].axes[0].collections
    assert load(Path("runs/maze2d-umaze/config.json")) == tiny  # what the app reads when it is started again
