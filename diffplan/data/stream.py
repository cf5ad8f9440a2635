"""Training windows of data that are larger than the device's memory: gathered on the host, block by block.

A block is some thousands of windows, each uniform over all windows of the episodes, with the law of `Windows.draw`. Its
content is a function of (seed, number) alone, so that training that is resumed goes on with the same blocks. While the
device trains on a block, a thread gathers the next one. Rows may lie in a file (np.memmap).
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffplan.codec import Cells, Codec
from diffplan.data.windows import Windows, no_window
from diffplan.episodes import Episodes
from diffplan.types import PRNGKey

DEFAULT_LIMIT = 4 * 2**30
"""Bytes that data may take on a device that does not say how much memory it has."""

FRACTION = 0.5
"""Fraction of a device's memory that data may take; the rest is for training."""


def memory_limit(default: int = DEFAULT_LIMIT) -> int:
    """Bytes that data may take on the first device.

    Args:
        default: the answer where the device does not say how much memory it has, as CPUs do not.
    """
    stats = jax.devices()[0].memory_stats() or {}
    return int(FRACTION * stats["bytes_limit"]) if "bytes_limit" in stats else default


def fits(nbytes: int, default: int = DEFAULT_LIMIT) -> bool:
    """Whether data of so many bytes may be placed on the device."""
    return nbytes <= memory_limit(default)


class Stream:
    """Blocks of windows (131) of episodes that stay on the host. A context manager; leaving it ends its thread."""

    def __init__(
        self,
        episodes: Episodes,
        codec: Codec | Cells,
        horizon: int,
        stride: int = 1,
        windows: int = 8192,
        every: int = 50,
        seed: int = 0,
    ):
        """Prepare to gather; nothing is read yet.

        Args:
            episodes: the data; arrays may be np.memmap.
            codec: normalises rows.
            horizon: rows of a window.
            stride: steps from one row of a window to the next.
            windows: windows of a block.
            every: training steps that a block is used for.
            seed: of which windows are in which block.

        Raises:
            DataError: if no episode is as long as a window.
        """
        self.episodes, self.codec, self.horizon, self.stride = episodes, codec, horizon, stride
        self.windows, self.every, self.seed = windows, every, seed
        counts = np.maximum(episodes.lengths - horizon * stride + 1, 0)
        if not counts.any():
            raise no_window(episodes, horizon, stride)
        self._last = np.cumsum(counts)
        """The number of windows in each episode and all before it."""
        self._shift = episodes.begins - (self._last - counts)
        """The first row of a window, less the window's number, for each episode."""
        self._current: tuple[int, Windows] | None = None
        self._next: tuple[int, Future[Windows]] | None = None
        self._thread = ThreadPoolExecutor(1, "windows")

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    @property
    def width(self) -> int:
        """d, the entries of a row."""
        return self.codec.width

    def block(self, number: int) -> Windows:
        """A block. The next one is gathered meanwhile; an error in gathering a block is raised here."""
        if self._current is None or self._current[0] != number:
            ready = self._next is not None and self._next[0] == number
            content = self._next[1].result() if self._next and ready else self.gather((self.seed, number), self.windows)
            self._current = number, content
            self._next = number + 1, self._thread.submit(self.gather, (self.seed, number + 1), self.windows)
        return self._current[1]

    def gather(self, seed: Any, count: int) -> Windows:
        """So many windows, drawn independently and uniformly, end to end."""
        rows = self.first_rows(seed, count)[:, None] + np.arange(self.horizon * self.stride)
        take = lambda values: jnp.asarray(np.asarray(values[rows.ravel()], np.float32))
        rewards = None if self.episodes.rewards is None else take(self.episodes.rewards)
        first = jnp.arange(count, dtype=jnp.int32) * (self.horizon * self.stride)
        content = take(self.episodes.observations), take(self.episodes.actions), rewards, first
        return Windows(*content, self.codec, self.horizon, self.stride)

    def first_rows(self, seed: Any, count: int) -> Int[np.ndarray, "n"]:
        """The first rows of windows, drawn independently and uniformly."""
        window = np.random.default_rng(seed).integers(self._last[-1], size=count)
        return window + self._shift[np.searchsorted(self._last, window, side="right")]

    def sample(self, key: PRNGKey, count: int) -> Windows:
        """`count` windows, independently drawn."""
        return self.gather(np.asarray(jax.random.key_data(key)), count)

    def draws(self, key: PRNGKey, count: int) -> Float[Array, "n h d"]:
        """`count` windows, normalised, independently drawn, as `Windows.draws` gives them."""
        windows = self.sample(key, count)
        return jax.vmap(windows.at)(windows.first)


Data = Windows | Stream
"""What models are trained on."""


def windows_of(
    episodes: Episodes, codec: Codec | Cells, horizon: int, stride: int = 1, default: int = DEFAULT_LIMIT
) -> Data:
    """All windows of episodes on the device if they fit there, else a stream of blocks.

    Args:
        episodes: the data.
        codec: normalises rows.
        horizon: rows of a window.
        stride: steps from one row of a window to the next.
        default: bytes that data may take where the device does not say how much memory it has.

    Raises:
        DataError: if no episode is as long as a window.
    """
    indices = 4 * len(episodes.actions)  # at most a first row for every row
    form = Windows.of if fits(episodes.nbytes + indices, default) else Stream
    return form(episodes, codec, horizon, stride)
