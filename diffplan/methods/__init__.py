"""Every way of turning a learned reward into plans, behind one signature (`diffplan.methods.base.Arm`)."""

from diffplan.methods.ascent import Ascent
from diffplan.methods.base import Arm, Plans, Problem
from diffplan.methods.best_of_n import BestOfN
from diffplan.methods.guidance import Guided, Prior

__all__ = ["Arm", "Ascent", "BestOfN", "Guided", "Plans", "Prior", "Problem"]
