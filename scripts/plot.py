"""`diffplan plot`, from a checkout:

python scripts/plot.py runs/maze2d-umaze      # 5 seconds: figure and page again
"""

import sys

from diffplan.cli.plot import main

if __name__ == "__main__":
    main(sys.argv[1:])
