"""Every way of turning a learned reward into plans, behind one signature (`diffplan.methods.base.Method`)."""

from diffplan.methods.ascent import Ascent
from diffplan.methods.base import Method, Plans, Problem
from diffplan.methods.best_of_n import BestOfN
from diffplan.methods.guidance import Guided, Prior

__all__ = ["Method", "Ascent", "BestOfN", "Guided", "Plans", "Prior", "Problem"]
