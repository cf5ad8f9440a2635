"""`diffplan train-reward`, from a checkout:

python scripts/train_reward.py demo            # 40 seconds: the three proxies, correlations near 0.9
"""

import sys

from diffplan.cli.train_reward import main

if __name__ == "__main__":
    main(sys.argv[1:])
