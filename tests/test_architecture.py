"""Who may import whom. The table is the architecture; an arrow that is not in it fails here."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room of diffplan, and what it may import of diffplan besides itself. A room without a row may not exist.
MATHS = (
    "types",
    "codec",
    "noise",
    "count",
    "chain",
    "dynamics",
    "policy",
    "denoise",
    "guide",
    "samplers",
    "smc",
    "discrete",
    "flow_map",
)
BELOW = (*MATHS, "episodes", "settings", "resolve", "task", "runs", "data", "models", "learn")
ABOVE = (*BELOW, "methods", "metrics")
MAY_IMPORT = {
    "__init__": (),
    "__main__": ("cli",),
    "envs": (),
    "types": (),
    "episodes": (),
    "settings": (),
    "count": (),
    "resolve": ("settings",),
    "codec": ("types",),
    "noise": ("types", "settings"),
    "dynamics": ("types", "count"),
    "policy": ("types", "count", "dynamics"),
    "simulators": ("types", "count"),
    "task": ("types", "codec", "episodes", "settings", "simulators", "runs"),
    "chain": ("types",),
    "denoise": ("types", "codec", "noise", "count", "chain"),
    "guide": ("types", "codec", "noise", "denoise", "count"),
    "samplers": ("types", "codec", "noise", "denoise", "count", "settings"),
    "smc": ("types", "codec", "noise", "denoise", "guide", "samplers", "count"),
    "discrete": ("types", "noise"),
    "flow_map": ("types", "noise", "denoise"),
    "runs": ("types", "settings", "__version__"),
    "models": ("types",),
    "oracle": ("types", "codec"),
    "metrics": ("types", "codec"),
    "data": ("types", "codec", "episodes"),
    "learn": BELOW,
    "methods": (*MATHS, "settings", "resolve", "learn", "metrics.kl"),
    "planner": (*ABOVE, "simulators", "tasks"),
    "experiment": (*ABOVE, "planner", "simulators"),
    "report": ("metrics.statistics", "metrics.table"),
    "tasks": ("types", "codec", "envs", "episodes", "settings", "resolve", "task", "runs", "data", "metrics"),
    "interface": (*ABOVE, "planner", "experiment", "report"),
    "studies": (*ABOVE, "envs", "oracle", "planner", "experiment", "report", "tasks", "validation.known"),
    "validation": (*ABOVE, "envs", "simulators", "experiment", "oracle"),
    "benchmarks": (*ABOVE, "envs", "planner", "simulators", "experiment", "report", "tasks"),
    "cli": (
        *(*ABOVE, "envs", "planner", "simulators", "experiment"),
        *("tasks", "report", "studies", "validation", "benchmarks"),
    ),
}
# what only some rooms of diffplan may import; the folder envs is diffplan.envs, and its bare name is its user's
ONLY = {"flax.nnx": ("models",), "csv": ("metrics",), "envs": ()}
HEAVY = {
    "torch",
    "mujoco",
    "h5py",
    "wandb",
    "tensorboardX",
    "marimo",
    "gymnasium",
    "gymnasium_robotics",
    "minari",
    "ogbench",
    "mctx",
}  # extras: inside functions only
ENVS_IMPORTS = {"jax", "numpy", "flax.struct", "jaxtyping", "diffplan"}  # at module level, beside the standard library
LAZY = {
    "diffplan.envs.gym": {"gymnasium"},
    "diffplan.benchmarks.speed.torch_unet": {"torch"},
}  # modules for leaves; nobody imports them at the top

FOLDERS = {"diffplan": "diffplan", "envs": "diffplan.envs"}  # of the checkout, and the packages that they become
MODULES = {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder, package in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def imports(module: str, source: str, is_package: bool = False) -> Iterator[tuple[str, bool]]:
    """Every module that the source imports, by its full name, and whether at the top (run when it is imported)."""

    def visit(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return  # seen by editors alone
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parts = module.split(".")
                here = parts[: len(parts) - node.level + is_package]
                origin = ".".join([*here, *origin.split(".")] if origin else here)
            # a name may be a module of its own; for others the prefix decides, and the longer name shares it
            yield from ((f"{origin}.{alias.name}", top) for alias in node.names)
        else:
            top = top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, top)

    yield from visit(ast.parse(source), True)


def forbidden(module: str, source: str, is_package: bool = False) -> list[str]:
    """The arrows out of one module that the tables above do not allow, in words."""
    wrong = []
    room = module.split(".")[1] if module.startswith("diffplan.") else "__init__"
    if room not in MAY_IMPORT:
        return [f"diffplan.{room} has no row in MAY_IMPORT"]
    for name, top in imports(module, source, is_package):
        arrow = f"{module} -> {name}"
        library = ".".join(name.split(".")[: 2 if name.startswith("flax.") else 1])
        if within(name, "diffplan"):
            allowed = [f"diffplan.{target}" for target in (room, *MAY_IMPORT[room])]
            if not any(within(name, target) for target in allowed):
                wrong.append(arrow)
        wrong += [
            f"{arrow}: only {', '.join(owners) or 'nobody'} may"
            for target, owners in ONLY.items()
            if within(name, target) and room not in owners
        ]
        if room == "envs" and top and library not in ENVS_IMPORTS | LAZY.get(module, set()) | sys.stdlib_module_names:
            wrong.append(f"{arrow}: not a library that envs builds on")
        if top and library in HEAVY - LAZY.get(module, set()):
            wrong.append(f"{arrow}: import extras inside the function that needs them")
        if top and any(within(name, lazy) and not within(module, lazy) for lazy in LAZY):
            wrong.append(f"{arrow}: import it inside the function that needs it")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module: str) -> None:
    path = MODULES[module]
    assert forbidden(module, path.read_text(), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("diffplan.types", "from diffplan import codec"),
        ("diffplan.guide", "import diffplan.samplersrs"),
        ("diffplan.codec", "from .denoise import loss"),
        ("diffplan.methods.guided", "from ..studies import tilt"),
        ("diffplan.methods.guided", "from diffplan.metrics import returns"),
        ("diffplan.report.space", "from diffplan.metrics import returns"),
        ("diffplan.metrics.returns", "def f():\n    from diffplan.envs import maze2d"),
        ("diffplan.learn.train", "from flax import nnx"),
        ("diffplan.learn.train", "import flax.nnx as nn"),
        ("diffplan.data.windows", "import h5py"),
        ("diffplan.report.load", "import csv"),
        ("diffplan.nonsense", "x = 1"),
        ("diffplan.methods.tree", "from diffplan.tasks import make_task"),
        ("diffplan.planner.build", "from diffplan.envs import maze2d"),
        ("diffplan.tasks.maze2d", "from envs import maze2d"),
        ("diffplan.envs.gym", "def f():\n    import envs.maze2d"),
        ("diffplan.task", "from diffplan.envs.base import Transition"),
        ("diffplan.studies.tilt", "from diffplan.envs import gym"),
        ("diffplan.envs.maze2d", "def f():\n    from diffplan import types"),
        ("diffplan.envs.maze2d", "import optax"),
        ("diffplan.envs.base", "from .gym import Gym"),
        ("diffplan.envs.base", "if True:\n    import gymnasium"),
    ],
)
def test_the_walker_fails_on(module: str, source: str) -> None:
    assert forbidden(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("diffplan.denoise", "from diffplan.types import Denoise\nfrom . import noise"),
        ("diffplan.methods.guided", "from .common import draw\nfrom ..guide import guided"),
        ("diffplan.models.unet", "from flax import nnx"),
        ("diffplan.report.tables", "from diffplan.metrics.statistics import iqm"),
        ("diffplan.report.tables", "from diffplan.metrics.table import read"),
        ("diffplan.data.windows", "def read(path):\n    import h5py"),
        ("diffplan.studies.tilt", "from diffplan.envs import maze2d"),
        ("diffplan.envs.base", "import math\nimport jax.numpy as jnp\nfrom flax import struct"),
        ("diffplan.envs.gym", "import gymnasium"),
    ],
)
def test_the_walker_allows(module: str, source: str) -> None:
    assert forbidden(module, source) == []


SOURCES = [path for folder in (*FOLDERS, "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_finished(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 400, f"{len(lines)} lines: find the second thing that this file does"
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|nnx\.jit)\b")  # nnx.jit: house rule 4
    assert [f"{i}: {line}" for i, line in enumerate(lines, 1) if unfinished.search(line)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_take_at_most_eight_things_and_no_lambda_returns_a_lambda(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Lambda):
            assert not isinstance(node.body, ast.Lambda), f"line {node.lineno}"
        if isinstance(node, ast.FunctionDef):
            names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            own = names[1:] if names[:1] in (["self"], ["cls"]) else names
            assert len(own) <= 8, f"{node.name}: {own}"


def test_no_room_is_above_15_percent_of_the_lines() -> None:
    rooms: dict[str, int] = {}
    for path in (ROOT / "diffplan").rglob("*.py"):
        room = path.relative_to(ROOT / "diffplan").parts[0]
        rooms[room] = rooms.get(room, 0) + len(path.read_text().splitlines())
    largest = max(rooms, key=lambda room: rooms[room])
    assert rooms[largest] <= 0.15 * sum(rooms.values()), f"{largest}: {rooms[largest]} lines"
