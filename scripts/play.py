"""`diffplan play`, from a checkout:

python scripts/play.py maze2d-umaze --scale 18     # episodes of a planner's agent; play.json and play.gif in the run
"""

import sys

from diffplan.cli.play import main

if __name__ == "__main__":
    main(sys.argv[1:])
