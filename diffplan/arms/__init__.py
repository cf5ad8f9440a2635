"""Every way of turning a learned reward into plans, behind one signature (`diffplan.arms.base.Arm`)."""

from diffplan.arms.ascent import Ascent
from diffplan.arms.base import Arm, Plans, Problem
from diffplan.arms.diffusion import Guided, Prior
from diffplan.arms.selection import BestOfN

__all__ = ["Arm", "Ascent", "BestOfN", "Guided", "Plans", "Prior", "Problem"]
