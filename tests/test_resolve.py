"""Names of things: from a list, from a file, from a module."""

import sys

import pytest

from diffplan.resolve import resolve
from diffplan.settings import ConfigError

KNOWN = {"one": 1, "two": 2}


def test_a_thing_a_name_or_a_place(tmp_path, monkeypatch):
    assert resolve(7, KNOWN, "number") == 7 and resolve("two", KNOWN, "number") == 2
    (tmp_path / "mine.py").write_text("THREE = 3\n")
    assert resolve(f"{tmp_path}/mine.py:THREE", KNOWN, "number") == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/mine.py:THREE", KNOWN, "number") == 3
    assert resolve("math:pi", {}, "number") == pytest.approx(3.14159, abs=1e-5)
    assert resolve("os.path:sep", {}, "text") in ("/", "\\")


WRONG = {
    "three": "number='three': must be one of one, two, or file.py:NAME",
    "": "number='': must be one of one, two, or file.py:NAME",
    "no_such_module:x": "number='no_such_module:x': no_such_module cannot be imported (ModuleNotFoundError: ",
    "math:no_such_name": "number='math:no_such_name': math has no no_such_name",
    "math:": "number='math:': math has no ",
    ":x": "number=':x':  cannot be imported (ValueError: ",
    "no/such/file.py:x": "no/such/file.py cannot be imported (FileNotFoundError: no such file)",
    "broken.py:x": "broken.py cannot be imported (SyntaxError: ",
    "raises.py:x": "raises.py cannot be imported (ZeroDivisionError: division by zero)",
    "imports.py:x": "imports.py cannot be imported (ModuleNotFoundError: No module named 'no_such_module')",
}


@pytest.mark.parametrize("value", WRONG)
def test_what_is_not_there_is_named_in_one_line(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "imports.py").write_text("import no_such_module\n")
    with pytest.raises(ConfigError) as error:
        resolve(value, KNOWN, "number")
    assert WRONG[value] in str(error.value) and "\n" not in str(error.value)


def test_a_file_may_hold_dataclasses_and_bear_the_name_of_a_module(tmp_path):
    """Annotations that are text are looked up in the module, which Python must know; it must not hide another."""
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
    (tmp_path / "json.py").write_text(text + "@dataclass\nclass A:\n    x: int = 3\n    y: ClassVar[int] = 4\n")
    assert resolve(f"{tmp_path}/json.py:A", {}, "thing")().x == 3
    assert sys.modules["json"].__name__ == "json" and hasattr(sys.modules["json"], "loads")


def test_a_file_is_read_as_it_is_now(tmp_path):
    path = tmp_path / "mine.py"
    for number in (1, 22):
        path.write_text(f"X = {number}\n")
        assert resolve(f"{path}:X", {}, "number") == number
