"""A slider over the guidance scale; the plans are sampled as it moves, from what a comparison has trained.

    .venv/bin/pip install -e '.[app]'
    .venv/bin/marimo run notebooks/live.py

Run it from the root of the repository, after `diffplan compare maze2d-umaze`. If nothing is trained there, it trains
first.
"""

import marimo

app = marimo.App(app_title="Guidance, live")


@app.cell
def _():
    from pathlib import Path

    import jax
    import jax.numpy as jnp
    import marimo as mo
    import numpy as np
    from matplotlib.figure import Figure

    from diffplan.cli.experiment import experiment, load
    from diffplan.experiment import compare, record
    from diffplan.methods import Guided
    from diffplan.planner import build, feasible
    from diffplan.report import load as reading
    from diffplan.report import space

    return Figure, Guided, Path, build, compare, experiment, feasible, jax, jnp, load, mo, np, reading, record, space


@app.cell
def _(Path, experiment, load):
    made = Path("runs/maze2d-umaze/config.json")
    config = load(made) if made.exists() else experiment("maze2d-umaze")
    return (config,)


@app.cell
def _(Guided, build, compare, config, feasible, jax, record):
    run, task = config.open()
    built = build.start(run, task, config.planner)
    problem, _ = build.assemble(jax.random.key(1), built, {"regression"})
    starts = compare.starts_of(built, jax.random.key(0), 32).observations
    windows = built.data.train.draws(jax.random.key(1), 1024)
    draw = jax.jit(Guided("guided", (0.0,)))  # one program for every scale: the scale is traced
    limits = feasible.limits_of(built.data.train)
    place, violations = record.place_of(task), feasible.violations_of(task, limits, built.stride)
    parts = (built.data.codec, built.reward, violations, task.residual, place, built.stride)
    measure = jax.jit(compare.Measures(*parts).__call__)
    return built, draw, measure, place, problem, starts, task, windows


@app.cell
def _(mo, np):
    scale = mo.ui.slider(steps=[0.0, *np.geomspace(1, 1000, 61).round(1).tolist()], label="guidance scale")
    seed = mo.ui.number(0, 99, label="seed")
    mo.hstack([scale, seed], justify="start")
    return scale, seed


@app.cell
def _(Figure, built, draw, jax, jnp, measure, np, place, problem, reading, scale, seed, space, starts, task, windows):
    x = draw(jax.random.key(seed.value), problem, starts, jnp.array([scale.value])).x[0]
    means = measure(problem.regression, windows, x)
    seen = lambda x: np.asarray(place(built.data.codec.decode(x).observations))
    positions, plane = seen(x), task.plane
    grid = reading.Grid(plane.solid, np.asarray(plane.origin), plane.size)
    region = None if plane.region is None else np.asarray(plane.region)
    plans = reading.Plans({}, {}, {}, positions[:, 0], grid, region, plane.labels, True)
    data = reading.Data(np.empty(0), np.empty(0), seen(windows[:1]))
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    axes = figure.add_subplot()
    space.draw_plane(axes, plans, space.bounds(plans, data))
    space.draw_lines(axes, space.turned(positions, plans), space.crossing(positions, grid))
    promised = f"promised {means['promised']:.1f} {task.words.returns}"
    numbers = f"proxy {means['proxy']:.1f} sd, {promised}, {means['feasible']:.0%} feasible"
    axes.set_title(f"scale {scale.value:g}: {numbers}", fontsize="medium")
    figure
    return (figure,)


if __name__ == "__main__":
    app.run()
