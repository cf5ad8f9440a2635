"""`diffplan study`, from a checkout:

python scripts/study.py run potemkin           # minutes: a study's table and verdict
"""

import sys

from diffplan.cli.study import main

if __name__ == "__main__":
    main(sys.argv[1:])
