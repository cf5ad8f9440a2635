"""`diffplan train-reward`, from a checkout:

python scripts/train_reward.py maze2d-umaze   # 40 seconds: the three reward models, and how well each ranks
"""

import sys

from diffplan.cli.train_reward import main

if __name__ == "__main__":
    main(sys.argv[1:])
