"""Runs the crossed comparison, part by part: prices, tuning, cells. Each part goes on where it was stopped.

Its tables stand in one directory, and grow by a method at a time:

    protocol.json   what was fixed before the run; another protocol is refused
    prices.csv      seconds of a plan of the prior in each world, from an idle machine
    costs.csv       what a plan of every setting that was asked for takes, in plans of the prior
    tuning.csv      every evaluation of tuning
    settings.csv    the tuned setting of every method, by world, reward and budget
    rows.csv        what the methods deliver, a row for each batch of a cell
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffplan.experiment import spend
from diffplan.experiment.compare import control_rows
from diffplan.experiment.harness import Plan, keys_of, measured
from diffplan.experiment.search import NothingAllowed, Setting, search
from diffplan.experiment.spend import Drawing, Rival, Spending, rival
from diffplan.methods import catalogue
from diffplan.methods.base import LearningMethod
from diffplan.methods.strengths import StrengthSettings
from diffplan.metrics import table
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Progress, RunError, say
from diffplan.runs.files import plain, read_json, versions, write_json
from diffplan.runs.lock import locked
from diffplan.studies.crossed import protocol
from diffplan.studies.crossed.models import Models, Opened, Wanted, open_cell
from diffplan.studies.crossed.protocol import BATCHES, BUDGETS, METHODS, PLANS, TUNING, Cell, cells
from diffplan.studies.crossed.worlds import WORLDS
from diffplan.task import Task

Row = dict[str, Any]
TOO_DEAR = "no setting within the budget: a plan of the prior"
NULL, PERFECT = "null_shuffled", "true_reward"
"""A control, run at the settings of `protocol.REFERENCE`; and a search in the true dynamics by the true reward."""
KEYS = ("world", "reward", "prior", "labels", "method", "budget")
COLUMNS = {
    "prices": ("world", "seconds", "load", "cores"),
    "costs": ("world", "method", "strength", "variant", "number", "ratio", "evaluations"),
    "tuning": (*KEYS, "strength", "variant", "candidates", "delivered", "promised", "feasible", "finite", "seconds"),
    "settings": (
        "world",
        "reward",
        "method",
        "budget",
        "strength",
        "variant",
        "number",
        "candidates",
        "inside",
        "tried",
    ),
    "rows": (
        *(*KEYS, "seed", "plans", "strength", "variant", "candidates", "delivered", "promised", "proxy", "feasible"),
        *("open_loop", "inverse", "tracked", "finite", "data_distance", "diversity", "path_kl", "behaviour_std"),
        *("finer_promised", "finer_delivered", "finer_feasible", "converged"),
        *("evaluations", "seconds", "budget_used", "pretrain_seconds", "pretrain_evals"),
    ),
}


class Tables:
    """The tables of a directory, as they grow. Everything is written at once, after each method."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.rows = {name: self.read(name) for name in COLUMNS}

    def read(self, name: str) -> list[Row]:
        """The rows that are there."""
        path = self.directory / f"{name}.csv"
        return list(table.read_rows(path)) if path.exists() else []

    def add(self, name: str, rows: list[Row]) -> None:
        """Append rows, and write the table."""
        self.rows[name] += rows
        table.write(self.directory / f"{name}.csv", self.rows[name], COLUMNS[name])

    def where(self, name: str, **values: Any) -> list[Row]:
        """The rows with some values."""
        return [row for row in self.rows[name] if all(str(row[key]) == str(value) for key, value in values.items())]


def opened(directory: Path, planner: PlannerSettings) -> Tables:
    """The tables of a directory, made under this protocol and with what this planner learns.

    Raises:
        RunError: if they were made under another.
    """
    names = (
        "BUDGETS",
        "EVALUATIONS",
        "PLANS",
        "BATCHES",
        "METHODS",
        "INSTEAD",
        "ONCE",
        "INFORMED",
        "REFERENCE",
        "LEVEL",
    )
    names += ("PRIORS", "LABELS", "TUNING", "SCORED")
    now = {name.lower(): plain(getattr(protocol, name)) for name in names}
    now["variants"] = {"families": plain(spend.BY_FAMILY), "own": plain(spend.OWN), "points": spend.POINTS}
    now["claims"], now["planner"] = list(protocol.CLAIMS), plain(planner)
    now["rewards"] = {name: {kind: repr(r) for kind, (r, _) in world.rewards.items()} for name, world in WORLDS.items()}
    path = directory / "protocol.json"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, now | {"versions": versions()})
    before = read_json(path)
    for name, value in now.items():
        if before.get(name) != value:
            raise RunError(f"{path}: {name} is {before.get(name)}, and now {value}: name another directory")
    return Tables(directory)


def rivals_of(task: Task) -> list[Rival]:
    """The methods that are compared on a task."""
    known = catalogue(StrengthSettings())
    names = [protocol.INSTEAD.get(name, name) if task.cells is not None else name for name in METHODS]
    return [rival(known[name]) for name in names]


def alone() -> Rival:
    """The prior alone."""
    return rival(catalogue(StrengthSettings())["prior"])


def shuffled() -> Rival:
    """Guidance by shuffled labels, with the variants of what it is a control of."""
    known = catalogue(StrengthSettings())
    return rival(known[NULL])._replace(variants=rival(known[protocol.REFERENCE]).variants)


class Place(NamedTuple):
    """A cell at work: what is learned, which methods are run, the compiled programs of its world, how much is run, its
    names in tables.
    """

    opened: Opened
    rivals: list[Rival]
    spending: Spending
    plan: Plan
    about: Row

    def starts(self, batch: int) -> Any:
        """Where the plans of a batch begin."""
        return self.opened.bench.starts(keys_of(self.plan, batch)[0], self.plan.plans)


def place_of(models: Models, spendings: dict[str, Spending], cell: Wanted, rivals: list[Rival], seed: int) -> Place:
    """A cell, ready to run some methods. spendings: by world. seed: of starts and noise."""
    world, needs = cell.world, {part for each in rivals for part in each.entry.needs}
    there = open_cell(models, cell, needs, seed)
    plan = Plan(BATCHES, PLANS, 0, seed)
    starts = there.bench.starts(keys_of(plan, 0)[0], PLANS).observations
    if world.name not in spendings:
        spendings.clear()  # programs of a world that is done
    spending = spendings.setdefault(world.name, Spending(starts))
    return Place(there, rivals, spending, plan, dict(zip(KEYS, (world.name, *cell[1:]), strict=False)))


def outcome(place: Place, each: Rival, setting: Setting, candidates: int, batch: int, problem: Any = None) -> Row:
    """What the plans of one setting deliver, from the starts of one batch."""
    key_starts, key_method, key_measure = keys_of(place.plan, batch)
    del key_starts
    begin, opened = place.starts(batch), place.opened
    problem = problem or opened.problem
    spent = spend.spend(key_method, place.spending, each, setting, problem, begin.observations, candidates)
    values = measured(each.entry, opened.bench, key_measure, begin, spent.x)
    seconds, evals = spent.training
    numbers = {name: float(value) for name, value in values.items()}
    if (lost := 1 - numbers["finite"]) > 0:  # what cannot be carried out earns what behaviour does
        numbers["delivered"] = np.nan_to_num(numbers["delivered"]) * (1 - lost) + lost * opened.mean()
    return (
        place.about
        | numbers
        | {
            "method": each.name,
            "seed": batch,
            "plans": place.plan.plans,
            "strength": setting.strength,
            "variant": each.words(setting),
            "candidates": candidates,
            "path_kl": float(jnp.mean(spent.path_kl)),
            "evaluations": spent.evaluations,
            "seconds": spent.seconds,
            "pretrain_seconds": opened.pretraining(each.entry) + seconds,
            "pretrain_evals": evals,
        }
    )


def tuning_places(models: Models, rewards: int | None = None) -> Iterator[Place]:
    """The cells of tuning: each world and reward, with the prior, labels and starts that no scored cell has.

    rewards: how many of each world; all if not given.
    """
    spendings: dict[str, Spending] = {}
    for world in WORLDS.values():
        for reward in list(world.rewards)[:rewards]:
            cell = Wanted(world, reward, TUNING["prior"], TUNING["labels"])
            rivals = rivals_of(world.task(cell.prior, reward))
            yield place_of(models, spendings, cell, rivals, TUNING["noise"])


def calibrate(models: Models, directory: Path) -> None:
    """Measure what a plan of the prior takes in every world, on a machine with nothing else to do: prices.csv."""
    with locked(directory):
        tables = opened(directory, models.planner)
        for place in tuning_places(models, rewards=1):
            world = place.about["world"]
            if not tables.where("prices", world=world):
                seconds, (load, *_) = spend.seconds_of(reference(place)) / PLANS, os.getloadavg()
                about = {"world": world, "seconds": seconds, "load": load, "cores": os.cpu_count()}
                tables.add("prices", [about])
                say(f"{world}: a plan of the prior takes {1000 * seconds:.3g} ms, at a load of {load:.1f}")


def reference(place: Place) -> Drawing:
    """The prior, ready to draw from the starts of the first batch: what seconds are counted in."""
    return ready_at(place, alone(), Setting(1.0))


def ready_at(place: Place, each: Rival, setting: Setting) -> Drawing:
    """A setting, ready to draw from the starts of the first batch."""
    starts = place.starts(0).observations
    return spend.ready(jax.random.key(0), place.spending, each, setting, place.opened.problem, starts)[0]


def afforded(tables: Tables, place: Place, each: Rival, setting: Setting, budget: float) -> int:
    """Candidates of a setting within a budget; 0 where not even one is. What it takes is measured once in a world."""
    world = place.about["world"]
    priced = tables.where("prices", world=world)
    if not priced:
        raise RunError(f"prices.csv: has no row for {world}: run `calibrate` first")
    at = {"world": world, "method": each.name, "strength": f"{setting.strength:.6g}", "number": setting.variant}
    if not tables.where("costs", **at):
        ratio = spend.ratio(ready_at(place, each, setting), reference(place))
        evaluations = place.spending.evaluations(each, setting, place.opened.problem)
        about = {"variant": each.words(setting), "ratio": ratio, "evaluations": evaluations}
        tables.add("costs", [at | about])
    (cost,) = tables.where("costs", **at)
    return spend.candidates_of(each, setting, float(cost["ratio"]) * float(priced[0]["seconds"]), budget)


def tune(models: Models, directory: Path) -> None:
    """Tune every method for every world, reward and budget: tuning.csv, settings.csv."""
    with locked(directory):
        tables = opened(directory, models.planner)
        for place in tuning_places(models):
            about = {name: place.about[name] for name in ("world", "reward")}
            for each in place.rivals:
                for budget in BUDGETS:
                    if not tables.where("settings", **about, method=each.name, budget=budget):
                        tune_one(tables, place, each, budget)


def tune_one(tables: Tables, place: Place, each: Rival, budget: float) -> None:
    """The setting of one method at one budget, by `protocol.EVALUATIONS` evaluations of the delivered return."""
    rows: list[Row] = []

    def evaluate(setting: Setting) -> float:
        row = outcome(place, each, setting, afforded(tables, place, each, setting, budget), 0)
        rows.append(row | {"budget": budget})
        return row["delivered"]

    name = "/".join(str(part) for part in (*list(place.about.values())[:2], each.name, budget))
    allowed = lambda setting: afforded(tables, place, each, setting, budget) > 0
    about = {name: place.about[name] for name in ("world", "reward")} | {"method": each.name, "budget": budget}
    try:
        result = search(evaluate, each.axes, protocol.EVALUATIONS, allowed)
    except NothingAllowed:
        say(f"{name}: no setting within the budget")
        tables.add("settings", [about | {"tried": 0}])
        return
    best = result.best
    chosen = {"strength": best.strength, "variant": each.words(best), "number": best.variant}
    chosen |= {"candidates": afforded(tables, place, each, best, budget), "inside": int(result.inside)}
    tables.add("settings", [about | chosen | {"tried": len(result.values)}])
    tables.add("tuning", rows)
    words = f"{best.strength:g} {each.words(best)}, {chosen['candidates']} candidates"
    say(f"{name}: {words}: delivered {result.values[best]:.3g}{'' if result.inside else ', at the end of its range'}")


def score(models: Models, directory: Path) -> None:
    """Run every cell with the tuned settings: rows.csv, method by method."""
    spendings, every = {}, cells(WORLDS)
    with locked(directory), Progress("cells", total=len(every), unit="cells") as progress:
        tables = opened(directory, models.planner)
        for cell in every:
            score_cell(models, tables, spendings, cell)
            progress.advance(1)


def score_cell(models: Models, tables: Tables, spendings: dict[str, Spending], cell: Cell) -> None:
    """The rows of one cell that are not there yet."""
    prior, labels, world = protocol.PRIORS[cell.prior], protocol.LABELS[cell.labels], WORLDS[cell.world]
    known = {"world": cell.world, "reward": cell.reward, "prior": prior, "labels": labels}
    rivals = [*rivals_of(world.task(prior, cell.reward)), shuffled()]
    rivals = [each for each in rivals if cell.prior == 0 or each.name not in protocol.ONCE]
    missing = lambda name, budget: not tables.where("rows", **known, method=name, budget=budget)
    wanted = [(each, budget) for each in rivals for budget in BUDGETS if missing(each.name, budget)]
    if not wanted and not missing(PERFECT, 0):
        return
    place = place_of(
        models, spendings, Wanted(world, cell.reward, prior, labels), rivals, protocol.SCORED + cell.number
    )
    spread = {"behaviour_std": place.opened.spread(place.plan)}
    add = lambda rows: tables.add("rows", [row | spread for row in rows])
    if missing("prior", 0):
        rows = [outcome(place, alone(), Setting(1.0), 1, batch) for batch in range(BATCHES)]
        rows += [place.about | row for row in control_rows(place.opened.build, place.plan, place.opened.bench)]
        add([row | {"budget": 0} for row in rows])
    for each, budget in wanted:
        add(score_one(tables, place, each, budget, again=cell.prior == 0 and budget == BUDGETS[0]))
    if missing(PERFECT, 0):
        add(perfect(place))


def score_one(tables: Tables, place: Place, each: Rival, budget: float, again: bool) -> list[Row]:
    """The rows of a method at one budget. again: whether its plans are also drawn with finer steps (144)."""
    tuned_as = protocol.REFERENCE if each.name == NULL else each.name
    about = {name: place.about[name] for name in ("world", "reward")} | {"method": tuned_as, "budget": budget}
    (chosen,) = tables.where("settings", **about)
    if not int(chosen["tried"]):
        rows = [outcome(place, alone(), Setting(1.0), 1, batch) for batch in range(BATCHES)]
        return [row | {"method": each.name, "budget": budget, "variant": TOO_DEAR} for row in rows]
    setting, candidates = Setting(float(chosen["strength"]), int(chosen["number"])), int(chosen["candidates"])
    rows = [outcome(place, each, setting, candidates, batch) for batch in range(BATCHES)]
    rows = [row | {"budget": budget, "budget_used": row["seconds"] / budget} for row in rows]
    if again and (finer := finer_of(place, each)):
        other, problem = finer
        for row in rows:
            new = outcome(place, other, setting, candidates, row["seed"], problem)
            row |= {f"finer_{name}": new[name] for name in table.COMPARED}
        rows = [row | {"converged": float(table.converged(rows))} for row in rows]
    return rows


def finer_of(place: Place, each: Rival) -> tuple[Rival, Any] | None:
    """A method with steps half as long, or twice as many updates; None for one that has neither."""
    problem, entry = place.opened.problem, each.entry
    if isinstance(entry.method, LearningMethod):
        return each._replace(entry=entry._replace(method=entry.method.longer(2))), problem
    if not entry.sampled:
        return None
    return each, replace(problem, sampler=replace(problem.sampler, halvings=problem.sampler.halvings + 1))


def perfect(place: Place) -> list[Row]:
    """A search of actions in the true dynamics by the true reward: what labels that tell all would be worth."""
    (search_of,) = [each for each in place.rivals if each.name == "mppi"]
    setting, problem = Setting(32.0, 1), place.opened.informed()
    rows = [outcome(place, search_of, setting, 1, batch, problem) for batch in range(BATCHES)]
    return [row | {"method": PERFECT, "budget": 0} for row in rows]
