"""What is published: no address of a registry or of a machine, exact pins, and a wheel that holds both packages."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import diffplan

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CORE = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
EXTRAS = {
    name: [Requirement(line) for line in lines] for name, lines in PROJECT["project"]["optional-dependencies"].items()
}
PYTHONS = ("3.11", "3.12", "3.13")

# Written so that this file does not match itself.
REGISTRIES = re.compile(r"py[p]i\.org|python[h]osted|npm[j]s\.(org|com)|ana[c]onda\.(org|com)|index[-_]ur[l]\s*=", re.I)
MACHINES = re.compile(r"(?<![\w.~})-])/(work|root|tmp|home|Users)(?=/|\s|['\"`:;,)]|$)", re.M)
LOCKS = re.compile(r"(^|/)(uv|poetry|pdm|pixi|Pipfile|package-lock|pylock.*)\.(lock|json|toml)$")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every text file that is tracked, or would be after `git add --all`."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    result = {}
    for name in filter(None, names):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        try:
            result[name] = data.decode()
        except UnicodeDecodeError:  # a picture or an array
            continue
    return result


@pytest.mark.parametrize("pattern", [REGISTRIES, MACHINES], ids=["registry", "machine"])
def test_no_address_is_published(texts: dict[str, str], pattern: re.Pattern[str]) -> None:
    hits = {name: match.group() for name, text in texts.items() if (match := pattern.search(text))}
    assert hits == {}


def test_no_lock_file_is_published(texts: dict[str, str]) -> None:
    assert [name for name in texts if LOCKS.search(name)] == []


def test_the_patterns_find_what_they_should() -> None:
    slash, host = "/", ".".join(["pypi", "org"])
    assert REGISTRIES.search(f"https://{host}/simple")
    for text in ("work/main", "root", "tmp/x.npz", "home/me/runs"):
        assert MACHINES.search(f"see '{slash}{text}'")
    for text in ("the framework/root of x", "runs/work/a", "$HOME/tmp/x", "homework", "and/or"):
        assert not MACHINES.search(text)


def test_every_pin_is_exact() -> None:
    for pin in pins():
        assert [spec.operator for spec in pin.specifier] == ["=="], pin
        assert "*" not in str(pin.specifier), pin
        assert pin.url is None, pin
        assert not pin.extras, pin


@pytest.mark.parametrize("python", PYTHONS)
def test_what_we_install_is_pinned_once_and_above_its_floor(python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    pinned: dict[str, list[str]] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(here):
            pinned.setdefault(canonical(pin.name), []).extend(spec.version for spec in pin.specifier)
    assert {name: versions for name, versions in pinned.items() if len(versions) > 1} == {}
    backend = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    for requirement in [*CORE, *EXTRAS["dev"], *backend]:
        assert canonical(requirement.name) in pinned, f"run `make constraints`: no pin for {requirement.name}"
        assert requirement.specifier.contains(pinned[canonical(requirement.name)][0]), requirement


def test_accelerator_extras_repeat_the_floor_of_jax() -> None:
    floor = next(r.specifier for r in CORE if r.name == "jax")
    assert any(spec.operator == ">=" for spec in floor)
    for extra in ("cuda12", "cuda13", "tpu"):
        (requirement,) = EXTRAS[extra]
        assert (requirement.name, requirement.extras, requirement.specifier) == ("jax", {extra}, floor)


def test_heavy_packages_come_only_with_their_extra() -> None:
    assert [name for name, lines in EXTRAS.items() if "torch" in {r.name for r in lines}] == ["bench"]
    assert not {r.name for r in CORE} & {r.name for lines in EXTRAS.values() for r in lines} - {"jax"}
    assert "torch" not in {pin.name for pin in pins()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip install .` builds it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_the_wheel_holds_one_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"diffplan", f"diffplan-{diffplan.__version__}.dist-info"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "diffplan").rglob("*.py")}
    worlds = {f"diffplan/envs/{path.name}" for path in (ROOT / "envs").glob("*.py")}
    assert modules | worlds <= names
    assert {f"diffplan/planner/pretrained/{name}.npz" for name in ("maze2d-umaze", "gridworld-fourrooms")} <= names
    assert "diffplan/py.typed" in names


@pytest.mark.parametrize("how", ["installed", "checkout"])
def test_a_package_envs_of_ones_own_stays_ones_own(how: str, installed: Path, tmp_path: Path) -> None:
    """One program imports both."""
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("OWNER = 'me'\n")
    program = """
import diffplan as dp
task = dp.make_task("gridworld-fourrooms")
import envs
from diffplan.envs.maze2d import UMAZE
print(envs.OWNER, dp.__file__)
"""
    (tmp_path / "program.py").write_text(program)
    where = installed if how == "installed" else ROOT
    settings = os.environ | {"PYTHONPATH": str(where), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    owner, file = done.stdout.split()
    (tmp_path / "beside.py").write_text("from envs import OWNER\n")  # a world of several files, named in a command
    (tmp_path / "world.py").write_text(f"import beside\n{program}\nassert beside.OWNER == envs.OWNER")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    listed = [sys.executable, "-m", "diffplan", "methods", "../world.py:task"]
    named = subprocess.run(listed, cwd=elsewhere, env=settings, capture_output=True, text=True)
    assert named.returncode == 0, named.stderr
    assert (owner, Path(file)) == ("me", where / "diffplan" / "__init__.py")
