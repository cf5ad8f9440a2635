"""A slider over the guidance scale; the plans are sampled as it moves, from what `make demo` has trained.

    .venv/bin/pip install -e '.[app]'
    .venv/bin/marimo run notebooks/live.py

Run it from the root of the repository. If nothing is trained there, it trains first, as `make demo` would.
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

    from diffplan.cli.experiment import Experiment, load
    from diffplan.experiment import build
    from diffplan.methods import Guided
    from diffplan.report import maze
    from diffplan.report.load import Plans

    return Experiment, Figure, Guided, Path, Plans, build, jax, jnp, load, maze, mo, np


@app.cell
def _(Experiment, Path, load):
    made = Path("runs/demo/config.json")
    config = load(made) if made.exists() else Experiment()  # the settings of `make demo`
    return (config,)


@app.cell
def _(Guided, build, config, jax):
    run, task = config.open()
    parts = build.start(run, task, config.experiment)
    problem, _ = build.assemble(parts)
    starts = build.starts_for(parts, jax.random.key(0), 32)
    draw = jax.jit(Guided("guided", (0.0,)))  # one program for every scale: the scale is traced
    return draw, parts, problem, starts, task


@app.cell
def _(mo, np):
    scale = mo.ui.slider(steps=[0.0, *np.geomspace(1, 1000, 61).round(1).tolist()], label="guidance scale")
    seed = mo.ui.number(0, 99, label="seed")
    mo.hstack([scale, seed], justify="start")
    return scale, seed


@app.cell
def _(Figure, Plans, draw, jax, jnp, maze, np, parts, problem, scale, seed, starts, task):
    x = draw(jax.random.key(seed.value), problem, starts, jnp.array([scale.value])).x[0]
    positions = np.asarray(task.place(parts.data.codec.decode(x).observations))
    promised, proxy = parts.returns(x).mean(), jax.vmap(problem.regression.score)(x).mean()
    broken = maze.crossing(positions, task.walls).any(-1).mean()
    region = np.asarray(task.target or (0.0, 0.0, 0.0))
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    axes = figure.add_subplot()
    maze.draw_maze(axes, Plans({}, {}, task.walls, region, positions[:, 0]))
    maze.draw_plans(axes, positions, task.walls)
    numbers = f"proxy {proxy:.1f} sd, promised {promised:.1f} steps, {broken:.0%} through walls"
    axes.set_title(f"scale {scale.value:g}: {numbers}")
    figure
    return (figure,)


if __name__ == "__main__":
    app.run()
