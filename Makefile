# Needs git, make and a Python >= 3.11; makes its own virtual environment. PYTHON=... chooses the interpreter
# (`make clean` first, if there is an environment already).

VENV := .venv
RUN = $(VENV)/bin/python
PIP = $(RUN) -m pip -qq --disable-pip-version-check --no-input

# Compiled programs are kept between runs: the second `make demo` or `make test` is a good deal faster.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

# Prints "3.13 /path/of/python" for a Python that runs, is new enough and can make environments. Each candidate is
# tried, because a name on PATH may be a shim that fails when it is run.
PROBE := import sys, venv, ensurepip; v = sys.version_info; ok = v >= (3, 11) and v.releaselevel == "final"; \
	print(f"3.{v.minor}", sys.executable) if ok else sys.exit(1)
NAMES := python3.11 python3.12 python3.13 python3.14 python3.15 python3.16 python3
PLACES := $(HOME)/.pyenv/versions/*/bin/python $(HOME)/.local/share/uv/python/*/bin/python
FOUND = $(shell for p in $(or $(PYTHON),$(NAMES) $(PLACES)); do $$p -c '$(PROBE)' 2>/dev/null | tr ' ' '@'; done)
NO_PYTHON := found no Python >= 3.11 that runs and has venv; name one with PYTHON=/path/to/python
# The newest Python that constraints.txt was resolved for. Newer ones take whatever resolves.
NEWEST_PINNED := 3.13

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo exact methods studies scores test test-all test-latest lint format bench constraints clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

TASK ?= maze2d-umaze

demo: $(VENV)/.core  ## draw the first figure: guidance against its rivals; TASK=gridworld-fourrooms and others
	@$(RUN) scripts/compare.py $(TASK) --preset demo $(ARGS)

exact: $(VENV)/.core  ## measure every exact answer: is it the sampler, the guide or the model?
	@$(RUN) scripts/exact.py $(ARGS)

methods: $(VENV)/.core  ## every method in a small maze, at equal budgets
	@$(RUN) scripts/compare.py maze2d-umaze --preset full --run runs/methods $(ARGS)
	@mkdir -p results/methods; cd runs/methods && cp results.csv summary.csv config.json ../../results/methods/ && \
		cp budgets.csv ../../results/methods.csv && cp axes.png ../../results/methods.png

studies: $(VENV)/.dev  ## run the studies: claims, tables, verdicts, figures
	@$(RUN) scripts/study.py run all $(ARGS)

scores: $(VENV)/.dev  ## Maze2D's published protocol in MuJoCo, about an hour; ARGS="--suite ogbench" and others
	@$(RUN) scripts/scores.py $(ARGS)

test: $(VENV)/.dev  ## run the tests, but for the slow ones
	@$(RUN) -m pytest -q -n auto --dist loadfile -m "not slow" $(ARGS)

test-all: test  ## run the slow tests too
	@$(RUN) -m pytest -q -n auto --dist loadfile -m slow $(ARGS)

test-latest:  ## run all the tests on the newest Python of this machine, in .venv-latest
	@python='$(lastword $(subst @, ,$(lastword $(shell printf '%s\n' $(FOUND) | sort -t. -k2n))))'; \
	test -n "$$python" || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
	$(MAKE) --no-print-directory test-all VENV=.venv-latest PYTHON="$$python"

lint: $(VENV)/.dev  ## ruff (rules and format) and pyright
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@mkdir -p .cache/types/diffplan && ln -sfn ../../../envs .cache/types/diffplan/envs
	@$(RUN) -m pyright

format: $(VENV)/.dev  ## let ruff mend what it can
	@$(RUN) -m ruff check --fix --exit-zero .
	@$(RUN) -m ruff format .

bench: $(VENV)/.bench  ## time sampling and training (installs torch, for the peers' models)
	@$(RUN) scripts/bench.py $(TASK) --parts plans energies horizons training peak worlds process torch $(ARGS)

clean:  ## remove environments and caches; runs/ stays
	@rm -rf .venv .venv-latest .cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps. Each is written last, so an interrupted install is done again.
$(VENV)/.core: EXTRA :=
$(VENV)/.dev: EXTRA := [dev]
$(VENV)/.bench: EXTRA := [bench]
$(VENV)/.core $(VENV)/.dev $(VENV)/.bench: pyproject.toml constraints.txt
	@set -e; found='$(firstword $(FOUND))'; version=$${found%@*}; python=$${found#*@}; \
	test -n "$$found" || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
	if ! $(RUN) -c "import pip, sys; sys.exit('3.%d' % sys.version_info[1] != '$$version')" 2>/dev/null; then \
		echo "making $(VENV) with $$python (Python $$version)"; "$$python" -m venv --clear $(VENV); fi; \
	pins="-c constraints.txt"; \
	if [ "$${version#3.}" -gt "$(NEWEST_PINNED:3.%=%)" ]; then pins=; \
		echo "Python $$version is newer than constraints.txt: taking the versions that resolve today"; fi; \
	echo "installing diffplan$(EXTRA) into $(VENV)"; \
	$(PIP) install $$pins hatchling; \
	$(PIP) install $$pins --no-build-isolation -e '.$(EXTRA)'; \
	touch $@ $(if $(EXTRA),$(VENV)/.core)

# One resolve on each Python of this machine, merged; a pin that differs between them gets a marker.
constraints:  ## pin anew: resolve on every Python here, rewrite constraints.txt
	@rm -rf .cache/pins && mkdir -p .cache/pins
	@for found in $$(printf '%s\n' $(FOUND) | sort -u -t@ -k1,1); do \
		version=$${found%@*}; [ "$${version#3.}" -le "$(NEWEST_PINNED:3.%=%)" ] || continue; \
		python=$${found#*@}; echo "resolving on Python $$version"; \
		$$python -m pip -qq install --dry-run --ignore-installed --report .cache/pins/$$version.json \
			hatchling -e '.[dev]' || exit 1; done; \
	$$python -c "$$MERGE" > .cache/pins/merged && cp .cache/pins/merged constraints.txt

define MERGE
import collections, json, pathlib, re
pins = collections.defaultdict(dict)
reports = sorted(pathlib.Path('.cache/pins').glob('*.json'), key=lambda p: int(p.stem[2:]))
for report in reports:
    for item in json.loads(report.read_text())['install']:
        name = re.sub('[-_.]+', '-', item['metadata']['name']).lower()
        if name != 'diffplan':
            pins[name][report.stem] = item['metadata']['version']
print('# Written by `make constraints`: what core and dev resolve to on Python', ', '.join(p.stem for p in reports))
for name, versions in sorted(pins.items()):
    pythons, distinct = list(versions), list(dict.fromkeys(versions.values()))
    for i, version in enumerate(distinct):
        span = [p for p in pythons if versions[p] == version]
        after = pythons[pythons.index(span[-1]) + 1:]
        marks = [f"python_version >= '{span[0]}'"] * (i > 0) + [f"python_version < '{after[0]}'" for _ in after[:1]]
        print(f'{name}=={version}' + (len(distinct) > 1) * ('; ' + ' and '.join(marks)))
endef
export MERGE
