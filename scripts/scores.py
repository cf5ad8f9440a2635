"""`diffplan scores`, from a checkout:

python scripts/scores.py                       # about an hour: Maze2D's published protocol
"""

import sys

from diffplan.cli.scores import main

if __name__ == "__main__":
    main(sys.argv[1:])
