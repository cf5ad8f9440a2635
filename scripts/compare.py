"""`diffplan compare`, from a checkout:

python scripts/compare.py demo                 # about 7 minutes on two CPU cores: table, figure and page in runs/demo
"""

import sys

from diffplan.cli.compare import main

if __name__ == "__main__":
    main(sys.argv[1:])
