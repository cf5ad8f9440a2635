"""The range of every method's strength, and how finely it is swept."""

from typing import Annotated

from diffplan.settings import COUNT, at_least, more_than, require, settings


@settings("strengths")
class StrengthSettings:
    """The range of every strength, and how finely it is swept: evenly in its logarithm, after the weakest."""

    points: Annotated[int, at_least(1, 10_000)] = 7
    """Strengths of a grid beside the weakest; twice as many where all are read from one run."""
    refine: Annotated[int, at_least(0, 10_000)] = 1
    """Strengths added on each side of the best, where each strength is run by itself."""
    scale: Annotated[tuple[float, float], more_than(0)] = (1, 1000)
    """Smallest and largest guidance scale; for the regression, per standard deviation of the return."""
    interval: Annotated[tuple[float, float], more_than(0)] = (0.1, 3)
    """Noise levels between which guidance in an interval acts, in standard deviations of the data."""
    weakened: Annotated[float, more_than(0)] = 10.0
    """The guidance scale at which the prior is weakened."""
    pool: Annotated[int, COUNT] = 16
    """Plans a start that are picked from."""
    ascent_steps: Annotated[int, COUNT] = 800
    """Gradient steps of ascent."""
    ascent_rate: Annotated[float, more_than(0)] = 10.0
    """Length of an ascent step from noise, in squared standard deviations of the data. A tenth of it where plans are
    checked or projected (`ascent_early`, `ascent_renoised`), a hundredth from clean plans (`ascent_prior`,
    `ascent_data`)."""
    weight: Annotated[tuple[float, float], more_than(0)] = (0.3, 30)
    """Smallest and largest weight of a standard deviation of the score, against a nat: particles, policies, tuning."""
    particles: Annotated[int, COUNT] = 8
    """Particles a plan."""
    iterations: Annotated[int, COUNT] = 16
    """Iterations of a search of actions; four times as many of steps along the gradient of actions."""
    population: Annotated[int, COUNT] = 64
    """Sequences of actions in an iteration; an eighth as many where each is improved by its gradient."""
    simulations: Annotated[int, COUNT] = 16
    """Simulations of a tree search, a move."""
    updates: Annotated[int, COUNT] = 60
    """Policy updates from fresh rollouts; a sixth of it where a whole prior is tuned."""
    rounds: Annotated[int, COUNT] = 6
    """Rounds of drawing plans and training on them."""
    round_plans: Annotated[int, COUNT] = 4
    """Plans a start in a round."""
    round_steps: Annotated[int, COUNT] = 50
    """Gradient steps in a round."""

    def check(self) -> None:
        """Raise ConfigError unless ranges begin below where they end."""
        for name in ("scale", "interval", "weight"):
            low, high = getattr(self, name)
            require(low < high, f"strengths.{name}", (low, high), "two numbers, the smaller first")
