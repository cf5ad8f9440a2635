"""A slider over the guidance scale: plans are drawn, and carried out, as it moves.

    .venv/bin/pip install -e '.[app]'
    .venv/bin/marimo run notebooks/live.py

Run it from the root of the repository. It reads the planner of runs/maze2d-umaze, if there is one, and the one that
ships, if not. It trains nothing and writes nothing.
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

    import diffplan as dp
    from diffplan.report import load as reading
    from diffplan.report import space

    return Figure, Path, dp, jax, jnp, mo, np, reading, space


@app.cell
def _(Path, dp):
    run = Path("runs/maze2d-umaze")
    planner = dp.load(run) if (run / "config.json").exists() else dp.Planner.pretrained("maze2d-umaze")
    return (planner,)


@app.cell
def _(mo, np):
    scale = mo.ui.slider(steps=[0.0, *np.geomspace(1, 1000, 61).round(1).tolist()], label="guidance scale")
    seed = mo.ui.number(0, 99, label="seed")
    mo.hstack([scale, seed], justify="start")
    return scale, seed


@app.cell
def _(Figure, jax, np, planner, reading, scale, seed, space):
    task, simulator = planner.task, planner.task.simulator
    key_start, key_plan, key_run = jax.random.split(jax.random.key(seed.value), 3)
    start = simulator.observe(simulator.reset(key_start))
    plans = planner.plan(key_plan, start, scale.value, n=32)
    returns = planner.deliver(key_run, plans)
    positions, plane = np.asarray(task.plane.place(plans.observations))[None], task.plane
    grid = reading.Grid(plane.solid, np.asarray(plane.origin), plane.size)
    region = None if plane.region is None else np.asarray(plane.region)
    shown = reading.Plans({}, {}, {}, positions[0, :, 0], grid, region, plane.labels, True)
    data = reading.Data(np.empty(0), np.empty(0), positions)
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    axes = figure.add_subplot()
    space.draw_plane(axes, shown, space.bounds(shown, data))
    space.draw_lines(axes, space.turned(positions[0], shown), space.crossing(positions[0], grid))
    kept = f"promised {plans.promised.mean():.1f}, delivered {returns.mean():.1f} {task.words.returns}"
    axes.set_title(f"scale {scale.value:g}: {kept}\n{plans.feasible.mean():.0%} feasible", fontsize="medium")
    figure
    return (figure,)


if __name__ == "__main__":
    app.run()
