# make setup   an environment in .venv, from the pinned and hashed requirements
#              TORCH=cpu leaves out CUDA's libraries, 3.5 of 5.4 GB; TORCH=cu126 and uv's other names of builds work, too
# make demo    every table and figure on generated data, and a report of them: no network, no GPU, minutes
# make test    everything that must pass before a commit
# make test-kill   a workflow that is killed at 20 random moments must end like an unbroken one
# make test-slurm  a workflow through a real Slurm, with faults; needs root, and names the packages that are missing
# make test-fuzz   ten minutes of damaged files, each refused by name or read; FUZZ="--seconds 60" for one minute
# make release a reviewer's archive of the last commit in dist/: sources, lock, reference results, checksums
# make lock    pin the dependencies again after a change in pyproject.toml

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
CORES ?= 2

FUZZ ?= --seconds 600

.PHONY: setup demo demo-in-steps test test-kill test-slurm test-fuzz lint release lock clean

setup: .venv/installed

# uv rather than pip: pip may choose a build of torch that the published torchvision can't be loaded with.
# Files are compiled once here. Otherwise, with PYTHONDONTWRITEBYTECODE as in many containers, each of hundreds of short
# jobs would compile torch again, which doubles its start-up. Without --python, uv would install into an environment that
# is active in the user's shell, and remove packages there.
# TORCH=cpu installs torch's build without CUDA, in the pinned version, from the index that uv knows. The lock has no
# digests of such builds, so torch and torchvision are installed without digests. All other packages stay as pinned.
OF_CUDA := torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==0.13.9
ifdef TORCH
	awk '/^[a-z]/ {kept = !/^($(OF_CUDA))==/} kept' requirements.lock > .venv/without-torch.lock
	$(UV) pip sync --python $(BIN)/python --quiet --require-hashes --compile-bytecode .venv/without-torch.lock
	$(UV) pip install --python $(BIN)/python --quiet --compile-bytecode --torch-backend $(TORCH) \
		$$(sed -nE 's/^((torch|torchvision)==[^ ]+).*/\1/p' requirements.lock)
else
	$(UV) pip sync --python $(BIN)/python --quiet --require-hashes --compile-bytecode requirements.lock
endif
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# One thread a job, two jobs at a time: on a CPU that beats two threads a job. Most of the jobs take a second or two, and
# importing torch takes as long, so one process imports it for all of them.
demo: setup
	$(BIN)/python -m maskrd.preloaded make --no-print-directory demo-in-steps

DEMO := $(BIN)/snakemake --quiet host reason --cores $(CORES) --resources gpu=$(CORES) --configfile workflow/config/demo.yaml

demo-in-steps:
	@echo "Step 1 of 3: the first table. Snakemake says how far it is."
	@$(DEMO) -- table1
	@echo "Table 1, image AUROC in percent:"
	@cat results/demo/tables/table1.csv
	@echo "Step 2 of 3: the other tables, Figure 7, and the table of all systems."
	@$(DEMO) -- tables figure7 systems
	@echo "Step 3 of 3: the report."
	@$(DEMO) -- report

# A file's tests share what they made, so each goes to one process.
test: setup lint
	$(BIN)/pytest -n $(CORES) --dist loadfile

test-kill: setup
	$(BIN)/python -m tests.kill --kills 20

test-slurm: setup
	$(BIN)/python -m tests.slurm.run

test-fuzz: setup
	$(BIN)/python -m tests.fuzz $(FUZZ)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

release: setup
	$(BIN)/python -m tools.release

lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--all-extras --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv results/demo
