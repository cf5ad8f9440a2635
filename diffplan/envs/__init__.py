"""The worlds, as `diffplan.envs.maze2d` and others. Their files stand in the folder `envs` at the top of a checkout.

A wheel holds them here. A checkout has them beside `diffplan`, where this package finds them. So a package `envs` of
your own stays yours in both.
"""

from pathlib import Path

_here = Path(__file__).parent
if not (_here / "base.py").exists():  # a checkout
    __path__.append(str(_here.parents[1] / "envs"))
