"""What every test runs under: checked types, two CPU devices, no silent rank promotion, pictures without a screen.

Most of the time of a cold run goes into compilation, so XLA compiles in haste: that takes a third of the time.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

HASTE = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = (
    f"{HASTE} {os.environ.get('XLA_FLAGS', '')}"  # before jax starts; commands in tests inherit it
)

import jax
import matplotlib
import pytest
from jaxtyping import install_import_hook

# Before anything imports them: every annotation of diffplan is checked. An int may stand for a float, as in
# PEP 484; jaxtyping's own pytest option cannot pass that setting on, for it splits its value at every comma.
install_import_hook(["diffplan"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_num_cpu_devices", 2)  # before anything asks for a device
jax.config.update("jax_numpy_rank_promotion", "raise")
matplotlib.use("Agg")


MAPS = Path("/proc/self/maps")
MANY = 20_000
"""Memory maps of a process at which it gives its programs back; Linux allows 65,530, and then compiling crashes."""


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Every program that XLA has compiled holds some memory maps for as long as JAX keeps it."""
    yield
    if MAPS.exists() and len(MAPS.read_bytes().splitlines()) > MANY:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key() -> jax.Array:
    """A typed key; fold in or split what you need."""
    return jax.random.key(0)
