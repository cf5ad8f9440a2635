"""The proxy stages of a run by themselves: three learned rewards on the same N labelled windows.

    python scripts/train_reward.py demo --run runs/few --proxy.labels 300          # about 40 s on two CPU cores

Writes RUN/proxy/{regression,classifier,clean} and prints how well each ranks held-out windows. Settings are those of
compare.py, which goes on from here when it is given the same ones.
"""

import jax
import numpy as np
from compare import PRESETS

from diffplan import runtime
from diffplan.config import CompareSettings


def main(config: CompareSettings) -> None:
    """Fit the proxies, or find them fitted, and print their correlation with the gold return on held-out windows."""
    from diffplan.experiment import stages

    data = stages.behaviour(config)
    x = data.held_out.draws(jax.random.key(config.seed), config.reference)
    gold = np.asarray(stages.gold_returns(data, x))
    for kind in stages.PROXIES:
        proxy, _ = stages.fit_proxy(config, kind, data)
        score = np.asarray(jax.jit(jax.vmap(proxy.score))(x))
        correlation = np.corrcoef(score, gold)[0, 1]
        runtime.say(
            f"{config.run / 'proxy' / kind}: correlation with gold on {len(x)} held-out windows {correlation:.3f}"
        )


if __name__ == "__main__":
    runtime.command(main, CompareSettings, PRESETS)
