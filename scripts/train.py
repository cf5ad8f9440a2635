"""`diffplan train`, from a checkout:

python scripts/train.py maze2d-umaze          # half a minute: the prior alone
"""

import sys

from diffplan.cli.train import main

if __name__ == "__main__":
    main(sys.argv[1:])
