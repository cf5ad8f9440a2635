"""Figures, tables and the page, drawn from the files of a run directory. Nothing here imports model code.

Three things can be asked for:

    figure.frontier(run_dir)   frontier.png and frontier.pdf
    page.page(run_dir)         report.html, self-contained
    table.show(run_dir)        the results in the terminal; `table.markdown` for a README
"""
