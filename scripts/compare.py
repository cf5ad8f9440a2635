"""`diffplan compare`, from a checkout:

python scripts/compare.py maze2d-umaze        # minutes on two CPU cores: table, figure and page in runs/maze2d-umaze
"""

import sys

from diffplan.cli.compare import main

if __name__ == "__main__":
    main(sys.argv[1:])
