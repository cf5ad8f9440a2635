"""`diffplan train`, from a checkout:

python scripts/train.py demo                   # 2 minutes: the prior alone, loss near 0.29
"""

import sys

from diffplan.cli.train import main

if __name__ == "__main__":
    main(sys.argv[1:])
