"""The benchmark: products counted by hand, calls in turn, processes that are what they say, a whole benchmark."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.benchmarks.speed import machine, process, timing
from diffplan.benchmarks.speed.machine import Product
from diffplan.benchmarks.speed.run import PARTS, BenchSettings, bench, in_words, other_rows
from diffplan.cli import command
from diffplan.methods import Guided
from diffplan.planner.presets import DEBUG
from diffplan.runs import Run, RunError
from diffplan.settings import ConfigError
from diffplan.tasks import make_task
from tests import problems


def products(function, *shapes):
    return machine.products(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def test_products_are_counted_through_batches_loops_and_branches():
    assert products(jnp.matmul, (4, 5), (5, 6)) == [(1, Product(4, 5, 6))]
    assert machine.operations(products(jnp.matmul, (4, 5), (5, 6))) == 240
    batched = products(jax.vmap(jnp.matmul), (7, 4, 5), (7, 5, 6))  # seven products of their own
    assert machine.operations(batched) == 7 * 240 and batched[0][0] == 7
    shared = products(jax.vmap(jnp.matmul, (0, None)), (7, 4, 5), (5, 6))  # one product with 28 rows
    assert shared == [(1, Product(28, 5, 6))]
    square = lambda a: jax.lax.scan(lambda a, _: (a @ a, None), a, length=9)[0]
    assert products(jax.jit(square), (3, 3)) == [(9, Product(3, 3, 3))]
    branch = lambda a: jax.lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a)
    assert machine.operations(products(branch, (3, 3))) == 2 * 54


def test_rows_of_other_parts_stay_and_those_of_another_machine_are_set_aside(tmp_path):
    path, about = tmp_path / "bench.json", {"task": "t", "planner": {}, "machine": {"cores": 2}}
    assert other_rows(path, about, ("plans",)) == []
    kept = [{"part": part} for part in ("plans", "peak")]
    path.write_text(json.dumps(about | {"rows": kept}))
    assert other_rows(path, about, ("plans", "torch")) == [{"part": "peak"}]
    assert other_rows(path, about | {"machine": {"cores": 4}}, ("plans",)) == [] and not path.exists()
    assert json.loads((tmp_path / "bench.json.old-1").read_text())["rows"] == kept


def test_what_is_used_of_the_peak_is_the_ratio_to_each_product():
    a = jnp.ones((64, 64))
    call, one, square = machine.peak(jax.jit(lambda a: a @ a), (a,), 2, "a call")
    assert one["what"] == "its largest product, [64, 64] x [64, 64]" and "1024" in square["what"]
    operations = 2 * 64**3
    assert call["per_second"] == pytest.approx(operations / call["median_s"])
    assert one["per_second"] == pytest.approx(machine.REPEATED * operations / one["median_s"])
    assert one["used"] == pytest.approx(call["per_second"] / one["per_second"])


def test_calls_are_made_in_turn_and_the_first_is_kept_apart():
    made = []
    timings = timing.interleaved({name: lambda name=name: made.append(name) for name in "ab"}, 3, "calls")
    assert made == ["a", "b"] * 4 and all(len(each.seconds) == 3 for each in timings.values())
    row = timing.row("part", "what", timing.Timing(9.0, [1.0, 4.0, 2.0]), 10, "plans/s")
    assert (row["median_s"], row["min_s"], row["max_s"], row["per_second"]) == (2.0, 1.0, 4.0, 5.0)


def test_worlds_take_steps():
    (row,) = machine.steps({"linear-point": make_task("linear-point").simulator}, 1, lanes=4, count=5)
    assert row["per_second"] == pytest.approx(20 / row["median_s"])


def test_a_measurement_has_a_process_and_a_peak_of_its_own(tmp_path):
    held = (
        "import json, numpy as np\na = np.ones(30_000_000)\n" + process.PEAK + "print(json.dumps(dict(m=megabytes())))"
    )
    free = held.replace("30_000_000", "3")
    more, less = (process.measured(code, tmp_path)["m"] for code in (held, free))
    assert 200 < more - less < 280 and less < 200  # 240 MB, and none of this process's own
    with pytest.raises(RunError, match="ZeroDivisionError"):
        process.measured("1 / 0", tmp_path)


def test_a_method_outside_a_program_is_compiled_once():
    traced = []

    def denoise(x, sigma):
        traced.append(1)
        return x / (1 + sigma**2)

    known = problems.linear()
    problem = replace(known.problem, denoise=denoise)
    call = lambda seed, strength: Guided("guided", (1.0,))(
        jax.random.key(seed), problem, known.starts, jnp.asarray([strength])
    )
    first, count = call(0, 1.0), len(traced)
    other = call(1, 2.0)
    assert len(traced) == count > 0 and not np.allclose(first.x, other.x)
    whole = jax.jit(lambda strength: Guided("guided", (1.0,))(jax.random.key(1), problem, known.starts, strength))
    np.testing.assert_allclose(whole(jnp.asarray([2.0])).x, other.x, rtol=1e-4, atol=1e-5)


def test_compiled_programs_are_kept_in_the_users_folder_unless_told_otherwise(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        command.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == before
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        command.keep_compiled()
        folder = Path(jax.config.jax_compilation_cache_dir)
        assert folder.parent == tmp_path / "diffplan" and folder.name.startswith(f"jax-{jax.__version__}-")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is here")
def test_without_pytorch_its_part_names_the_extra():
    from diffplan.benchmarks.speed import unet

    with pytest.raises(ConfigError, match=r"parts=torch: needs PyTorch: pip install 'diffplan\[bench\]'"):
        unet.compare(2, 1, 1)


@pytest.mark.slow
def test_a_whole_benchmark_times_every_part_and_writes_it_down(tmp_path):
    parts = tuple(part for part in PARTS if part not in ("torch", "process"))
    how = BenchSettings(parts=parts, sizes=(1, 4), horizons=(16, 24), repeats=1, out=tmp_path / "bench.json")
    rows = bench(Run(tmp_path / "run"), make_task("linear-point"), DEBUG, how)
    assert {row["part"] for row in rows} == set(parts)
    assert json.loads(how.out.read_text())["rows"] == rows
    plans = {row["what"]: row for row in rows if row["part"] == "plans"}
    assert list(plans) == [
        *(f"{count} plans, {kind}" for kind in ("unguided", "guided") for count in (1, 4)),
        *("20 scales of 64 plans", "best of 4 unguided plans"),
    ]
    assert 0 <= plans["4 plans, guided"]["feasible"] <= 1 and "delivered" in plans["4 plans, guided"]
    assert [row["what"] for row in rows if row["part"] == "horizons"][::2] == [
        "64 plans of 16 rows, unguided",
        "64 plans of 24 rows, unguided",
    ]
    assert "guided_contrastive" in {row["what"] for row in rows if row["part"] == "energies"}
    assert all(in_words(row).startswith(f"{row['part']}: ") for row in rows)
