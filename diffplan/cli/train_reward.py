"""The proxies of a run by themselves: three learned rewards on the same N labelled windows.

    diffplan train-reward demo --run runs/few --proxy.labels 300          # about 40 s on two CPU cores

Writes RUN/reward/{regression,classifier,clean} and prints how well each ranks held-out windows. Settings are those of
`diffplan compare`, which goes on from here.
"""

from collections.abc import Sequence

from diffplan.cli import experiment
from diffplan.cli.experiment import Experiment


def action(config: Experiment) -> None:
    """Fit the proxies, or read them back, and print their correlation with the true return on held-out windows."""
    import jax
    import numpy as np

    from diffplan.experiment import build as building
    from diffplan.learn.reward import PROXIES
    from diffplan.learn.reward_models import RewardModelSettings
    from diffplan.runs import say
    from diffplan.runs.lock import locked

    run, task = config.open()
    with locked(run.directory):
        build = building.start(run, task, config.experiment)
        x = build.data.held_out.draws(jax.random.key(config.experiment.seed), config.experiment.reference)
        returns = np.asarray(build.returns(x))
        for kind in PROXIES:
            proxy, _ = building.fit_proxy(build, kind, RewardModelSettings())
            correlation = np.corrcoef(np.asarray(jax.jit(jax.vmap(proxy.score))(x)), returns)[0, 1]
            words = f"correlation with the true return on {len(x)} held-out windows {correlation:.3f}"
            say(f"{config.run / 'reward' / kind}: {words}")


def main(arguments: Sequence[str]) -> None:
    """The command."""
    experiment.main(action, "diffplan train-reward", __doc__, arguments)
