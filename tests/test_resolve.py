"""What a user names is found by its name, in a file or in a module; what is not there is said in one line."""

import math
from pathlib import Path

import pytest

from diffplan.methods import NULLS, Guided, Prior, catalogue, chosen
from diffplan.methods.strengths import StrengthSettings
from diffplan.resolve import resolve
from diffplan.samplers import STEPS, ancestral, heun
from diffplan.settings import ConfigError

OWN = """
from __future__ import annotations
from dataclasses import dataclass
from diffplan.methods import Guided

@dataclass(frozen=True)
class Size:
    value: int = 3

METHOD = Guided("own", (0.0, 1.0))
TAKEN = Guided("ascent", (0.0, 1.0))

@dataclass(frozen=True)
class Copied(Guided):
    name: str = "copied"
    strengths: tuple[float, ...] = (0.0,)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_an_object_and_a_known_name() -> None:
    assert resolve(heun, STEPS, "step") is heun
    assert resolve("ancestral", STEPS, "step") is ancestral
    assert all(STEPS[name].__name__ == name for name in STEPS)


def test_a_name_in_a_module_and_in_a_file(file: Path) -> None:
    assert resolve("math:tau", {}, "step") == math.tau
    assert resolve("diffplan.samplers:heun", {}, "step") is heun
    assert resolve(f"{file}:Size", {}, "step")().value == 3
    assert resolve(f"{file}:Size", {}, "step") is resolve(f"{file}:Size", {}, "step")  # executed once


def test_a_file_that_changed_is_read_again(file: Path) -> None:
    before = resolve(f"{file}:Size", {}, "step")
    file.write_text(OWN.replace("int = 3", "int = 4"))
    assert (before().value, resolve(f"{file}:Size", {}, "step")().value) == (3, 4)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("euler", "step='euler': must be one of ancestral, sde_2m, ddim, heun, dpmpp_2m, or file.py:NAME, or "),
        (":heun", "step=':heun': must be one of"),
        ("nowhere.py:heun", "step='nowhere.py:heun': cannot load nowhere.py: FileNotFoundError: "),
        ("not.a.module:heun", "step='not.a.module:heun': cannot load not.a.module: ModuleNotFoundError: "),
        ("math:heun", "step='math:heun': math has no heun; it has acos"),
    ],
)
def test_what_is_not_there_is_named(value: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve(value, STEPS, "step")
    assert str(raised.value).startswith(error) and "\n" not in str(raised.value)


def test_a_file_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=r"cannot load .*broken\.py: ZeroDivisionError: division by zero"):
        resolve(f"{tmp_path}/broken.py:A", {}, "step")


def test_methods_by_name_by_file_and_as_objects(file: Path) -> None:
    strengths = StrengthSettings()
    entries = chosen(strengths, ("ascent", f"{file}:METHOD", "guided", f"{file}:Copied", Guided("mine", (0.0,))))
    assert [entry.name for entry in entries] == ["prior", "guided", "ascent", *NULLS, "own", "copied", "mine"]
    assert [entry.family for entry in entries[5:]] == ["own"] * 3
    known = catalogue(strengths)
    entry = known["ascent"]._replace(method=Guided("again", (0.0,)))
    assert chosen(strengths, (entry, "prior")) == (known["prior"], *(known[null] for null in NULLS), entry)


@pytest.mark.parametrize(
    ("methods", "error"),
    [
        (("nothing",), "methods='nothing': must be one of all, prior, guided, "),
        (("math:tau",), "methods='math:tau': must have the attributes of diffplan.methods.Method"),
        ((Prior(name="guided"),), "its name 'guided' is taken: give it another"),
        ((Prior(name="mine"), Prior(name="mine")), "its name 'mine' is taken: give it another"),
    ],
)
def test_methods_that_cannot_be(methods: tuple, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        chosen(StrengthSettings(), methods)
