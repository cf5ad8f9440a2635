"""`diffplan bench`, from a checkout:

python scripts/bench.py maze2d-umaze        # how fast plans are made, and what they deliver; bench.json in the run
"""

import sys

from diffplan.cli.bench import main

if __name__ == "__main__":
    main(sys.argv[1:])
