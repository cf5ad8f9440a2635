"""Every setting, with its unit. A field's text is what ``--help`` prints; a value that cannot work is refused here, by
name.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


class ConfigError(Exception):
    """A value that cannot work. Not a ValueError: tyro would catch it, and wrap its line up in a box of its own."""


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise the one line that names a field, its value and what is allowed."""
    if not condition:
        raise ConfigError(f"{name}={value!r}: must be {allowed}")


@dataclass(frozen=True)
class DataSettings:
    """Behaviour data: D4RL's noisy waypoint controller in a maze."""

    maze: str = "umaze"
    """open, umaze, medium, large, or the path of a text drawing (# wall, O free, G goal)."""
    rows: int = 1_000_000
    """Environment steps to record."""
    trajectories: int = 500
    """Independent runs, simulated side by side; rows / trajectories steps each."""
    noise: float = 0.5
    """Standard deviation of the noise on the controller's actions, in units of the largest action."""
    seed: int = 0
    """Seed of the data."""

    def __post_init__(self) -> None:
        require(self.rows >= 1, "data.rows", self.rows, "at least 1")
        require(
            1 <= self.trajectories <= self.rows,
            "data.trajectories",
            self.trajectories,
            f"between 1 and data.rows ({self.rows})",
        )
        require(self.noise >= 0, "data.noise", self.noise, "0 or more")


@dataclass(frozen=True)
class GoldSettings:
    """The true reward. The optimisers never see it; labels of it train the proxies."""

    kind: Literal["region", "goal", "path"] = "region"
    """region: steps spent in a disc of free space; goal: steps within 0.5 cells of the maze's goal; path: cells
    travelled."""
    centre: tuple[float, float] = (1.6, 2.7)
    """Centre of the region, in cells (D4RL coordinates)."""
    radius: float = 0.3
    """Radius of the region, in cells."""

    def __post_init__(self) -> None:
        require(self.radius > 0, "gold.radius", self.radius, "more than 0")


@dataclass(frozen=True)
class TrainSettings:
    """One training run."""

    steps: int
    """Gradient steps."""
    batch: int = 128
    """Windows a step."""
    optimiser: Literal["adam", "muon"] = "adam"
    """adam, or muon: the momentum of every matrix made orthogonal (Jordan et al. 2024), Adam for all else."""
    learning_rate: float = 1e-3
    """Peak learning rate, after warm-up; it decays along a cosine to a hundredth. Muon takes some ten times Adam's."""
    warmup: int = 100
    """Steps of linear warm-up."""
    ema: float = 0.995
    """Decay of the parameters' moving average, per step; the average is what is used."""
    chunk: int = 50
    """Steps per compiled call, and per line of metrics.jsonl."""
    save_every: int = 500
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of the initial parameters and of every batch."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "chunk", "save_every"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        require(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "more than 0")
        require(0 <= self.ema < 1, "train.ema", self.ema, "in [0, 1)")
        require(self.warmup >= 0, "train.warmup", self.warmup, "0 or more")


@dataclass(frozen=True)
class NoiseSettings:
    """Noise levels, in standard deviations of the data."""

    low: float = 0.02
    """Smallest level, in training and in sampling."""
    high: float = 10.0
    """Largest level: where sampling starts."""

    def __post_init__(self) -> None:
        require(0 < self.low < self.high, "noise.low", self.low, f"between 0 and noise.high ({self.high})")


@dataclass(frozen=True)
class PriorSettings:
    """The diffusion model of behaviour."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=3000, batch=64, learning_rate=2e-3))
    network: Literal["mixer", "unet"] = "mixer"
    """mixer: patched MLP-mixer, fast on CPU; unet: Diffuser's temporal U-Net (dim 32, mults 1-4-8, 3.68 M)."""
    horizon: int = 128
    """Steps of a plan; the mixer's patch, or 4 for the unet, must divide it."""
    width: int = 128
    """Mixer: width of a token."""
    depth: int = 3
    """Mixer: number of blocks."""
    patch: int = 8
    """Mixer: steps to a token."""
    goal_fraction: float = 0.1
    """Share of training windows whose last observation is kept clean too, so that goals can be pinned."""
    held_out: float = 0.1
    """Share of data trajectories that training never sees; starts and reference plans come from them."""

    def __post_init__(self) -> None:
        divisor = self.patch if self.network == "mixer" else 4
        require(divisor >= 1 and self.horizon % divisor == 0, "prior.horizon", self.horizon, f"a multiple of {divisor}")
        require(0 <= self.goal_fraction <= 1, "prior.goal_fraction", self.goal_fraction, "in [0, 1]")
        require(0 < self.held_out < 1, "prior.held_out", self.held_out, "between 0 and 1")


@dataclass(frozen=True)
class ProxySettings:
    """The learned rewards: regression, classifier and clean regression, fitted on the same labels."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=800, batch=64))
    labels: int = 1000
    """N, the number of labelled windows."""
    quantile: float = 0.9
    """The classifier's class is a return at or above this quantile of the labels."""
    width: int = 64
    """Width of a token."""
    depth: int = 2
    """Number of blocks."""
    patch: int = 8
    """Steps to a token."""

    def __post_init__(self) -> None:
        require(self.labels >= 2, "proxy.labels", self.labels, "at least 2")
        require(0 < self.quantile < 1, "proxy.quantile", self.quantile, "between 0 and 1")


@dataclass(frozen=True)
class CloneSettings:
    """The behaviour policy, cloned from the data: what learned policies start from and are held to."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000, batch=64, learning_rate=3e-3))
    width: int = 64
    """Width of a hidden layer."""
    depth: int = 2
    """Number of hidden layers."""

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            require(getattr(self, name) >= 1, f"clone.{name}", getattr(self, name), "at least 1")


@dataclass(frozen=True)
class SamplerSettings:
    """How plans are drawn from the prior, guided or not."""

    rule: Literal["ancestral", "sde_2m", "ddim", "heun", "dpmpp_2m"] = "ancestral"
    """Step rule; path KL is defined for ancestral and sde_2m, which add noise."""
    steps: int = 32
    """Noise levels, and evaluations of the denoiser (heun: twice that)."""

    def __post_init__(self) -> None:
        require(self.steps >= 2, "sampler.steps", self.steps, "at least 2")


@dataclass(frozen=True)
class StrengthSettings:
    """The range of every strength_name, and how finely it is swept: evenly in its logarithm, after the weakest
    strength.
    """

    points: int = 7
    """Strengths of a grid beside the weakest; twice as many where all are read from one run."""
    refine: int = 2
    """Strengths added on each side of the best, where each strength is run by itself."""
    scale: tuple[float, float] = (1, 1000)
    """Smallest and largest guidance scale; for the regression, per standard deviation of the return."""
    pool: int = 32
    """Plans a start that are picked from."""
    ascent_steps: int = 800
    """Gradient steps of ascent."""
    ascent_rate: float = 10.0
    """Length of an ascent step, in squared standard deviations of the data; a tenth of it from plans of the prior."""
    weight: tuple[float, float] = (0.3, 30)
    """Smallest and largest weight of a standard deviation of the score, against a nat: particles, policies, tuning."""
    particles: int = 8
    """Particles a plan."""
    iterations: int = 16
    """Iterations of a search of actions."""
    population: int = 64
    """Sequences of actions in an iteration."""
    updates: int = 60
    """Policy updates from fresh rollouts; a sixth of it where a whole prior is tuned."""
    rounds: int = 6
    """Rounds of drawing plans and training on them."""
    round_plans: int = 4
    """Plans a start in a round."""
    round_steps: int = 50
    """Gradient steps in a round."""

    def __post_init__(self) -> None:
        counts = ("points", "pool", "ascent_steps", "particles", "iterations", "population", "updates", "rounds")
        for name in (*counts, "round_plans", "round_steps"):
            require(getattr(self, name) >= 1, f"strengths.{name}", getattr(self, name), "at least 1")
        require(self.refine >= 0, "strengths.refine", self.refine, "0 or more")
        for name in ("scale", "weight"):
            low, high = getattr(self, name)
            require(0 < low < high, f"strengths.{name}", (low, high), "two numbers above 0, the smaller first")
        require(self.ascent_rate > 0, "strengths.ascent_rate", self.ascent_rate, "more than 0")


DEMO_METHODS = (
    *("prior", "guided", "guided_classifier", "guided_dps", "guided_raw"),
    *("best_of_n", "ascent", "ascent_clean"),
)


@dataclass(frozen=True)
class WorldSettings:
    """A model of the dynamics: an ensemble of networks, fitted on transitions of behaviour."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000, batch=256))
    transitions: int = 10_000
    """M, the number of transitions that it learns from."""
    members: int = 5
    """K, the number of networks, whose disagreement is the disagreement."""
    width: int = 128
    """Width of a hidden layer."""
    depth: int = 2
    """Number of hidden layers."""

    def __post_init__(self) -> None:
        require(self.members >= 2, "world.members", self.members, "at least 2 (disagreement is disagreement)")
        for name in ("transitions", "width", "depth"):
            require(getattr(self, name) >= 1, f"world.{name}", getattr(self, name), "at least 1")


@dataclass(frozen=True)
class ValueSettings:
    """The score to be expected of the beginning of a plan, fitted on windows of behaviour and the proxy's scores."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000, batch=64))
    width: int = 64
    """Width of a token."""
    depth: int = 2
    """Number of blocks."""
    patch: int = 8
    """Steps to a token; the horizon must be a multiple of it."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "patch"):
            require(getattr(self, name) >= 1, f"value.{name}", getattr(self, name), "at least 1")


@dataclass(frozen=True)
class ConditionalSettings:
    """The diffusion model of behaviour given its score and where it ends, for classifier-free guidance."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=3000, batch=64, learning_rate=2e-3))
    drop: float = 0.5
    """Probability that training leaves out a part of the condition, the score or the goal, each on its own. At 1/2
    score alone, goal alone, both and neither are equally often asked; methods ask for one part, or for nothing."""
    width: int = 128
    """Width of a token."""
    depth: int = 3
    """Number of blocks."""
    patch: int = 8
    """Steps to a token; it must divide prior.horizon."""

    def __post_init__(self) -> None:
        require(0 < self.drop < 1, "conditional.drop", self.drop, "between 0 and 1")
        for name in ("width", "depth", "patch"):
            require(getattr(self, name) >= 1, f"conditional.{name}", getattr(self, name), "at least 1")


@dataclass(frozen=True)
class RewardModelSettings:
    """Who labels the windows that the proxies learn from, and how they learn from labels."""

    kind: Annotated[
        Literal[
            "learned",
            "true",
            "noisy",
            "ensemble_mean",
            "ensemble_min",
            "ensemble_uwo",
            "adversarial",
            "conservative",
            "blind",
            "deceivable",
            "decomposed",
        ],
        tyro.conf.arg(name=""),
    ] = "learned"
    """learned: gold labels; true: the gold itself; noisy, blind, deceivable: labels that are wrong in a way; the others
    learn from gold labels in another way."""
    labels: int | None = None
    """N, the number of labelled windows; as many as proxy.labels if not given, and 20 times as many for true."""
    noise: float = 0.25
    """noisy: share of windows that have another window's label; of a classifier's labels, share that is flipped."""
    members: int = 5
    """ensemble_*: networks, which differ in their seed alone."""
    caution: float = 0.5
    """ensemble_uwo: weight of the members' variance, taken off their mean."""
    blind: tuple[float, float, float] = (1.6, 3.0, 0.3)
    """blind: x, y and radius in cells of a disc in which the rater sees no reward."""
    decoy: tuple[float, float, float] = (2.8, 0.8, 0.3)
    """deceivable: x, y and radius in cells of a disc in which the ball seems to be in the gold's region."""
    parts: int = 2
    """decomposed: equal stretches of the plan, each with its own learned reward; what is pushed is their sum."""
    push: float = 0.3
    """adversarial, conservative: how far windows are moved, as root mean square in standard deviations of the data."""
    push_steps: int = 3
    """adversarial, conservative: gradient steps in which they are moved."""
    conservatism: float = 0.5
    """conservative: weight of the score that ascent gains, in the loss."""

    def __post_init__(self) -> None:
        require(self.labels is None or self.labels >= 2, "rater.labels", self.labels, "at least 2")
        require(0 <= self.noise <= 1, "rater.noise", self.noise, "in [0, 1]")
        for name, low in {"members": 2, "parts": 1, "push_steps": 1}.items():
            require(getattr(self, name) >= low, f"rater.{name}", getattr(self, name), f"at least {low}")
        for name in ("blind", "decoy"):
            require(getattr(self, name)[2] > 0, f"rater.{name}", getattr(self, name), "of a radius above 0")
        require(self.push > 0, "rater.push", self.push, "more than 0")
        for name in ("caution", "conservatism"):
            require(getattr(self, name) >= 0, f"rater.{name}", getattr(self, name), "0 or more")


@dataclass(frozen=True)
class CompareSettings:
    """One comparison: every method at all its strengths, on the same data, prior, proxies and starts."""

    run: Path = Path("runs/demo")
    """Directory of the run. What is finished in it is reused; what was made with other settings is kept aside."""
    data: DataSettings = field(default_factory=DataSettings)
    gold: GoldSettings = field(default_factory=GoldSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    prior: PriorSettings = field(default_factory=PriorSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    methods: tuple[str, ...] = DEMO_METHODS
    """Names of methods, as diffplan/studies/catalogue.py has them, or all. The prior is always among them."""
    strengths: StrengthSettings = field(default_factory=StrengthSettings)
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)
    world: WorldSettings = field(default_factory=WorldSettings)
    value: ValueSettings = field(default_factory=ValueSettings)
    clone: CloneSettings = field(default_factory=CloneSettings)
    conditional: ConditionalSettings = field(default_factory=ConditionalSettings)
    seeds: int = 4
    """Repetitions, each with its own starts and noise; intervals are over them."""
    plans: int = 64
    """Plans per method, strength and seed."""
    reference: int = 4096
    """Data windows that returns, proxies and distances are compared with."""
    seed: int = 0
    """Seed of the starts and of all sampling noise."""
    track: Literal["none", "wandb", "tensorboard"] = "none"
    """Where training metrics go beside metrics.jsonl; wandb and tensorboard need the `track` extra."""

    def __post_init__(self) -> None:
        require(self.seeds >= 1, "seeds", self.seeds, "at least 1")
        require(self.plans >= 2, "plans", self.plans, "at least 2 (diversity is over pairs)")
        require(self.reference >= 2, "reference", self.reference, "at least 2")
        steps = self.data.rows // self.data.trajectories
        require(
            steps > self.prior.horizon,
            "data.rows",
            self.data.rows,
            f"more than data.trajectories * prior.horizon ({self.data.trajectories * self.prior.horizon})",
        )
