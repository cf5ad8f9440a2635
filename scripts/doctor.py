"""`diffplan doctor`, from a checkout:

python scripts/doctor.py     # versions, devices, cache, disk, extras, speed: ten seconds
"""

import sys

from diffplan.cli.doctor import main

if __name__ == "__main__":
    main(sys.argv[1:])
