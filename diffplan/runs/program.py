"""The identity of a program: a digest of what jax would compile.

The jaxpr of a function says what the function computes, whatever its source looks like. Memory addresses in it are
stripped; arrays that the function closed over count by their content, its arguments by their shapes alone.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from diffplan.runs.files import digest, text_digest

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def program(function: Callable[..., Any], *arguments: Any) -> str:
    """A digest of the program of a function for arguments of these shapes and dtypes."""
    return identity(jax.make_jaxpr(function)(*arguments))


def identity(traced: ClosedJaxpr) -> str:
    """A digest of a program that is traced already."""
    text = ADDRESS.sub("", str(traced.jaxpr))
    return text_digest(text + digest(traced.consts))
