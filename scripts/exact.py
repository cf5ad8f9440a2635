"""`diffplan exact`, from a checkout:

python scripts/exact.py                        # about 11 minutes: every exact answer
"""

import sys

from diffplan.cli.exact import main

if __name__ == "__main__":
    main(sys.argv[1:])
