"""What every test runs under: two CPU devices, no silent rank promotion, pictures without a screen."""

import os
from pathlib import Path

import jax
import matplotlib
import pytest

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_num_cpu_devices", 2)  # before anything asks for a device
jax.config.update("jax_numpy_rank_promotion", "raise")
matplotlib.use("Agg")


@pytest.fixture
def key() -> jax.Array:
    """A typed key; fold in or split what you need."""
    return jax.random.key(0)
