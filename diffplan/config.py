"""Every setting, with its unit. A field's text is what ``--help`` prints; a value that cannot work is refused here, by
name.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal


class ConfigError(Exception):
    """A value that cannot work. Not a ValueError: tyro would catch it, and wrap its line up in a box of its own."""


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise the one line that names a field, its value and what is allowed."""
    if not condition:
        raise ConfigError(f"{name}={value!r}: must be {allowed}")


@dataclass(frozen=True)
class DataConfig:
    """Behaviour data: D4RL's noisy waypoint controller in a maze."""

    maze: str = "umaze"
    """open, umaze, medium, large, or the path of a text drawing (# wall, O free, G goal)."""
    rows: int = 1_000_000
    """Environment steps to record."""
    lanes: int = 500
    """Independent runs, simulated side by side; rows / lanes steps each."""
    noise: float = 0.5
    """Standard deviation of the noise on the controller's actions, in units of the largest action."""
    seed: int = 0
    """Seed of the data."""

    def __post_init__(self) -> None:
        require(self.rows >= 1, "data.rows", self.rows, "at least 1")
        require(1 <= self.lanes <= self.rows, "data.lanes", self.lanes, f"between 1 and data.rows ({self.rows})")
        require(self.noise >= 0, "data.noise", self.noise, "0 or more")


@dataclass(frozen=True)
class GoldConfig:
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
class TrainConfig:
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
class NoiseConfig:
    """Noise levels, in standard deviations of the data."""

    low: float = 0.02
    """Smallest level, in training and in sampling."""
    high: float = 10.0
    """Largest level: where sampling starts."""

    def __post_init__(self) -> None:
        require(0 < self.low < self.high, "noise.low", self.low, f"between 0 and noise.high ({self.high})")


@dataclass(frozen=True)
class PriorConfig:
    """The diffusion model of behaviour."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=3000, batch=64, learning_rate=2e-3))
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
    """Share of data lanes that training never sees; starts and reference plans come from them."""

    def __post_init__(self) -> None:
        divisor = self.patch if self.network == "mixer" else 4
        require(divisor >= 1 and self.horizon % divisor == 0, "prior.horizon", self.horizon, f"a multiple of {divisor}")
        require(0 <= self.goal_fraction <= 1, "prior.goal_fraction", self.goal_fraction, "in [0, 1]")
        require(0 < self.held_out < 1, "prior.held_out", self.held_out, "between 0 and 1")


@dataclass(frozen=True)
class ProxyConfig:
    """The learned rewards: regression, classifier and clean regression, fitted on the same labels."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=800, batch=64))
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
class SamplerConfig:
    """How plans are drawn from the prior, guided or not."""

    rule: Literal["ancestral", "sde_2m", "ddim", "heun", "dpmpp_2m"] = "ancestral"
    """Step rule; path KL is defined for ancestral and sde_2m, which add noise."""
    steps: int = 32
    """Noise levels, and evaluations of the denoiser (heun: twice that)."""

    def __post_init__(self) -> None:
        require(self.steps >= 2, "sampler.steps", self.steps, "at least 2")


@dataclass(frozen=True)
class ArmsConfig:
    """The strengths of every arm, weakest first. They are traced: more of them cost time, never a recompilation."""

    guided: tuple[float, ...] = (0, 1, 3, 10, 20, 30, 100, 300, 1000)
    """Guidance scales for the noise-conditioned regression, per standard deviation of the return."""
    guided_classifier: tuple[float, ...] = (0, 1, 3, 10, 30, 100, 300, 1000)
    """Guidance scales for the noise-conditioned classifier."""
    guided_plugin: tuple[float, ...] = (0, 1, 3, 10, 30, 100, 300, 1000)
    """Guidance scales for the clean reward of the denoised plan."""
    guided_raw: tuple[float, ...] = (0, 1, 3, 10, 30, 100, 300, 1000)
    """Guidance scales for the clean reward of the noisy plan."""
    best_of_n: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 16, 32)
    """Numbers of plans to pick the best of; the largest sets the cost."""
    ascent: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 300, 800)
    """Gradient steps, on the noise-conditioned and on the clean regression; the largest sets the cost."""
    ascent_rate: float = 10.0
    """Length of an ascent step, in squared standard deviations of the data."""

    def __post_init__(self) -> None:
        for name in ("guided", "guided_classifier", "guided_plugin", "guided_raw", "best_of_n", "ascent"):
            values = getattr(self, name)
            low = 1 if name == "best_of_n" else 0
            sound = len(values) > 0 and all(a < b for a, b in pairwise(values)) and values[0] >= low
            require(sound, f"arms.{name}", values, f"strictly increasing numbers from {low} up")
        require(self.ascent_rate > 0, "arms.ascent_rate", self.ascent_rate, "more than 0")


@dataclass(frozen=True)
class CompareConfig:
    """One comparison: every arm at all its strengths, on the same data, prior, proxies and starts."""

    run: Path = Path("runs/demo")
    """Directory of the run. What is finished in it is reused; what was made with other settings is kept aside."""
    data: DataConfig = field(default_factory=DataConfig)
    gold: GoldConfig = field(default_factory=GoldConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    arms: ArmsConfig = field(default_factory=ArmsConfig)
    seeds: int = 4
    """Repetitions, each with its own starts and noise; intervals are over them."""
    plans: int = 64
    """Plans per arm, strength and seed."""
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
        steps = self.data.rows // self.data.lanes
        require(
            steps > self.prior.horizon,
            "data.rows",
            self.data.rows,
            f"more than data.lanes * prior.horizon ({self.data.lanes * self.prior.horizon})",
        )
