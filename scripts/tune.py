"""`diffplan tune`, from a checkout:

python scripts/tune.py maze2d-umaze           # about 2 minutes after compare; recommends a scale
"""

import sys

from diffplan.cli.tune import main

if __name__ == "__main__":
    main(sys.argv[1:])
