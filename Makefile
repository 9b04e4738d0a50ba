# make setup   an environment in .venv, from the pinned and hashed requirements
# make demo    every table and figure on generated data, and a report of them: no network, no GPU, minutes
# make test    everything that must pass before a commit
# make test-kill   a workflow killed at 20 random moments ends as an unbroken one
# make test-slurm  a workflow through a real Slurm, with faults; root, Debian's slurm-wlm and munge
# make lock    pin anew after a change of dependencies in pyproject.toml

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
CORES ?= 2

.PHONY: setup demo test test-kill test-slurm lint lock clean

setup: .venv/installed

# uv rather than pip: pip may choose a build of torch that the published torchvision can't be loaded with.
# Compiled once here: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each of hundreds of short jobs
# would compile torch anew, which doubles its start-up. --python: uv would else install into an environment that is
# active in the user's shell, and remove what it has.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(UV) pip sync --python $(BIN)/python --quiet --require-hashes --compile-bytecode requirements.lock
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# One thread a job, two jobs at a time: on a CPU that beats two threads a job.
demo: setup
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(CORES) --configfile workflow/config/demo.yaml -- tables figure7 systems
	$(BIN)/snakemake --cores $(CORES) --configfile workflow/config/demo.yaml -- report

test: setup lint
	$(BIN)/pytest

test-kill: setup
	$(BIN)/python -m tests.kill --kills 20

test-slurm: setup
	$(BIN)/python -m tests.slurm.run

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--all-extras --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv results/demo
