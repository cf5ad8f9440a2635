"""`diffplan methods`, from a checkout:

python scripts/methods.py     # every method: its strength, what it acts on, what it needs: two seconds
"""

import sys

from diffplan.cli.methods import main

if __name__ == "__main__":
    main(sys.argv[1:])
