"""The catalogue: what each method needs and acts on, which methods are chosen, and which can run on a task."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

from diffplan import methods
from diffplan.experiment.harness import PARTS
from diffplan.experiment.settings import DEMO_METHODS
from diffplan.learn.contrastive import ContrastiveEnergy
from diffplan.methods import FAMILIES, NULLS, Entry, Guided, Method, Prior, Problem, catalogue, chosen, suited
from diffplan.methods.strengths import StrengthSettings
from diffplan.noise import karras
from diffplan.settings import ConfigError
from diffplan.validation import known
from tests import problems

FEW = StrengthSettings(
    points=1,
    pool=4,
    ascent_steps=2,
    particles=2,
    iterations=2,
    population=4,
    simulations=2,
    updates=6,
    rounds=1,
    round_plans=1,
    round_steps=1,
)
ENTRIES = catalogue(FEW)
CELLS = {"tree": True, "gradient_model": False}
"""The methods that plan in one-hot cells alone, or cannot."""


def names(*values) -> list[str]:
    return [entry.name for entry in chosen(FEW, values)]


# -- the entries --


@pytest.fixture(scope="module")
def whole() -> Problem:
    """A small room with every part that any method uses, all of them exact."""
    problem = problems.grid(horizon=4).problem
    chain, proxy = known.walk(problems.ROOM, 4), problem.regression
    return replace(
        problem,
        sampler=replace(problem.sampler, sigmas=karras(3, 0.05, 10.0)),
        **dict.fromkeys(("conservative", "shuffled", "untrained"), proxy),
        model=problem.dynamics,
        value=known.TabularValue(chain, proxy),
        conditional=known.TabularConditional(chain, proxy.weights),
        flow_map=Partial(lambda x, sigma, to: problem.denoise(x, sigma)),
        contrastive=ContrastiveEnergy(None, Exact(proxy), lambda params, x, level: jnp.zeros(()), 1.0),
    )


class Exact(NamedTuple):
    """A reader of plans that starts from an energy."""

    energy: Any

    def __call__(self, x, sigma):
        return x, self.energy(x, sigma)


@pytest.fixture(scope="module")
def rows() -> Problem:
    """A point on a line, for methods that cannot plan in cells."""
    problem = problems.linear(horizon=4).problem
    return replace(problem, model=problem.dynamics)


def traced(entry: Entry, problem: Problem) -> None:
    """Do what the harness does, but for running it."""
    if entry.name != "prior":  # which is scored where there is a regression
        entry.method.proxy(problem)
    starts = jnp.zeros((2, problem.codec.observation_dim))
    strengths = jnp.asarray(entry.method.strengths, jnp.float32)
    draw = lambda *arguments: entry.method(*arguments).x
    x = jax.eval_shape(draw, jax.random.key(0), problem, starts, strengths)
    assert x.shape == (len(strengths), 2, *problem.shape)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_method_needs_the_parts_that_it_names_and_no_others(whole, rows, name):
    entry = ENTRIES[name]
    if entry.module and find_spec(entry.module) is None:
        pytest.skip(f"needs {entry.module}")
    problem = rows if entry.cells is False else whole
    given = lambda parts: replace(problem, **dict.fromkeys(PARTS - {*parts}))
    traced(entry, given(entry.needs))
    for part in entry.needs:
        with pytest.raises(ValueError, match=f"the problem has no {part}"):
            traced(entry, given({*entry.needs} - {part}))


def test_entries_stand_in_the_order_of_families_under_their_own_names():
    assert all(name == entry.name == entry.method.name for name, entry in ENTRIES.items())
    families = [entry.family for entry in ENTRIES.values()]
    assert [family for i, family in enumerate(families) if family not in families[:i]] == list(FAMILIES)
    assert all(isinstance(entry.method, Method) for entry in ENTRIES.values())


def test_what_methods_act_on_says_how_they_are_carried_out():
    """Planners search actions; policies act by themselves; all others make plans."""
    carried = {"planning": "open_loop", "policies": "itself"}
    for entry in ENTRIES.values():
        assert entry.delivered_by == carried.get(entry.family, "inverse")
        assert entry.replans == (entry.family not in ("policies", "fine-tuning", "controls"))
    assert {name: entry.cells for name, entry in ENTRIES.items() if entry.cells is not None} == CELLS


# -- which are chosen --


def test_the_prior_and_the_null_controls_are_always_there():
    """Wherever a method pushes a reward; the prior alone pushes none."""
    assert names() == names("prior") == ["prior"]
    assert names("critic") == ["prior", "critic", *NULLS]
    assert names("null_noise") == ["prior", *NULLS]
    assert names("ascent", "guided", "guided") == ["prior", "guided", "ascent", *NULLS]  # in the catalogue's order
    assert names(*DEMO_METHODS) == [*DEMO_METHODS, *NULLS]
    assert names("all") == names("ascent", "all") == list(ENTRIES)


OWN = """
from diffplan.methods import Entry, Guided

mine = Guided("mine", (0.0, 1.0))
entry = Entry("ascent", "Me 2025", "actions", Guided("theirs", (0.0, 1.0)), ("clean",))
taken = Guided("guided", (0.0, 1.0))
number = 3

class Class(Guided):
    def __init__(self):
        super().__init__("classy", (0.0, 1.0))
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return lambda name: f"{path}:{name}"


def test_methods_of_ones_own_come_last(own):
    """A method by itself may use all readings of the labels; an entry says what it needs; a class is called."""
    mine = chosen(FEW, (own("mine"), "guided", own("entry"), own("Class"), Guided("object", (1.0,))))
    assert [entry.name for entry in mine] == ["prior", "guided", *NULLS, "mine", "theirs", "classy", "object"]
    assert names(own("mine")) == ["prior", *NULLS, "mine"]
    by_name = {entry.name: entry for entry in mine}
    for name in ("mine", "classy", "object"):
        entry = by_name[name]
        assert (entry.family, entry.acts_on) == ("own", "plans")
        assert set(entry.needs) == {"regression", "classifier", "clean"}
    assert by_name["theirs"].delivered_by == "open_loop" and by_name["theirs"].needs == ("clean",)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["guided", "nothing"], "methods='nothing': must be one of all, prior, guided, .*, or file.py:NAME"),
        (["taken"], "methods='.*own.py:taken': its name 'guided' is taken: give it another"),
        (["mine", "mine"], "methods='.*own.py:mine': its name 'mine' is taken: give it another"),
        (["number"], "methods='.*own.py:number': must have the attributes of diffplan.methods.Method"),
        (["nobody"], "methods='.*own.py:nobody': .*own.py has no nobody; it has .*mine"),
    ],
)
def test_what_is_no_method_is_refused(own, values, said):
    values = [value if value in ("guided", "nothing") else own(value) for value in values]
    with pytest.raises(ConfigError, match=f"^{said}"):
        chosen(FEW, values)


# -- which can run --


def test_who_is_left_out_and_why(monkeypatch):
    monkeypatch.setattr(methods, "find_spec", lambda name: None)
    everyone = chosen(FEW, ("all",))
    kept, left = suited(everyone, (), cells=True)
    rows_alone = {"gradient_model": "cannot plan in one-hot cells"}
    assert left == {"tree": "needs mctx: pip install 'diffplan[search]'"} | rows_alone
    assert len(kept) == len(everyone) - 2
    assert suited(everyone, (), cells=False)[1] == {"tree": "plans in one-hot cells alone"}
    kept, left = suited(everyone, {"dynamics"}, cells=False)
    assert {entry.family for entry in kept}.isdisjoint({"policies"}) and left["cem"] == "needs dynamics"
    assert left["receding_model"] == left["tree"] == "needs dynamics" and "cem_model" not in left
    kept, left = suited(everyone, {"regression", "classifier", "clean", "conservative"}, cells=False)
    assert [entry.name for entry in kept] == ["prior"]
    assert left["guided_dps"] == "needs clean" and set(NULLS) < set(left)
    assert suited(everyone, {"regression", "value"}, True)[1]["receding_model"] == "needs regression and value"


def test_a_module_that_is_there_leaves_nobody_out(monkeypatch):
    monkeypatch.setattr(methods, "find_spec", lambda name: object())
    everyone = chosen(FEW, ("all",))
    kept, left = suited(everyone, (), cells=True)
    assert [*left] == ["gradient_model"] and set(kept) | {ENTRIES["gradient_model"]} == set(everyone)
    assert suited((Entry("own", "", "plans", Prior(), ()),), PARTS, False)[1] == {}
