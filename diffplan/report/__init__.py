"""Figures, tables and the page of any task, from the files of a run directory. Nothing here imports model code.

Three things can be asked for:

    draw.draw(run_dir, out)    summary.csv, budgets.csv, frontier.png, axes.png, report.html; `out` may be left out
    table.show(run_dir)        the results in the terminal; `table.markdown` for a README
    budgets.show(run_dir)      the best return at equal budgets
"""
