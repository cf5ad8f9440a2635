"""A slider over the guidance scale; the plans are sampled as it moves, from what `make demo` has trained.

    .venv/bin/pip install -e '.[app]'
    .venv/bin/marimo run notebooks/live.py

Run it from the root of the repository. If nothing is trained there, it trains first, as `make demo` would.
"""

import marimo

app = marimo.App(app_title="Guidance, live")


@app.cell
def _():
    import jax
    import jax.numpy as jnp
    import marimo as mo
    import numpy as np
    from matplotlib.figure import Figure

    from diffplan.config import CompareSettings
    from diffplan.experiment import compare, stages
    from diffplan.methods import Guided
    from diffplan.report import maze
    from diffplan.report.load import Plans

    return CompareSettings, Figure, Guided, Plans, compare, jax, jnp, maze, mo, np, stages


@app.cell
def _(CompareSettings):
    config = CompareSettings()  # the settings of `make demo`
    return (config,)


@app.cell
def _(Guided, compare, config, jax):
    problem, data, _ = compare.assemble(config)
    starts = compare.starts_for(jax.random.key(0), data, 32)
    draw = jax.jit(Guided("guided", (0.0,)))  # one program for every scale: the scale is traced
    return data, draw, problem, starts


@app.cell
def _(mo, np):
    scale = mo.ui.slider(steps=[0.0, *np.geomspace(1, 1000, 61).round(1).tolist()], label="guidance scale")
    seed = mo.ui.number(0, 99, label="seed")
    mo.hstack([scale, seed], justify="start")
    return scale, seed


@app.cell
def _(Figure, Plans, config, data, draw, jax, jnp, maze, np, problem, scale, seed, stages, starts):
    x = draw(jax.random.key(seed.value), problem, starts, jnp.array([scale.value])).x[0]
    positions = np.asarray(data.codec.decode(x).observations[..., :2])
    gold, proxy = stages.gold_returns(data, x).mean(), jax.vmap(problem.regression.score)(x).mean()
    broken = maze.crossing(positions, data.maze.walls).any(-1).mean()
    region = np.array([*config.gold.centre, config.gold.radius])
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    axes = figure.add_subplot()
    maze.draw_maze(axes, Plans({}, {}, data.maze.walls, region, positions[:, 0]))
    maze.draw_plans(axes, positions, data.maze.walls)
    axes.set_title(f"scale {scale.value:g}: proxy {proxy:.1f} sd, gold {gold:.1f} steps, {broken:.0%} through walls")
    figure
    return (figure,)


if __name__ == "__main__":
    app.run()
