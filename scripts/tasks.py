"""`diffplan tasks`, from a checkout:

python scripts/tasks.py     # the worlds that ship, and what else names a task: two seconds
"""

import sys

from diffplan.cli.tasks import main

if __name__ == "__main__":
    main(sys.argv[1:])
