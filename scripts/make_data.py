"""`diffplan make-data`, from a checkout:

python scripts/make_data.py maze2d-umaze      # 10 seconds: 1 M rows of behaviour
"""

import sys

from diffplan.cli.make_data import main

if __name__ == "__main__":
    main(sys.argv[1:])
