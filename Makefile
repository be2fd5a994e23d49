# make run and make test are the two to begin with; make help lists all. Each sets up .venv first where
# it is missing, and a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
RANKS ?= 33

help:                ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

run: .venv/ready     ## the main job: mpirun -n 33 fedmpi train
	PATH="$(CURDIR)/$(BIN):$$PATH" mpirun -n $(RANKS) fedmpi train

# a third worker for tests that wait; many processes are started, which would compile fedmpi each
# if they may not keep it. At the end one line says what was skipped and why. .ci/run does more: as root
# it first installs by apt-get what tests are skipped without, then allows no skip but for a GPU.
test: check          ## the whole suite, MPI tests included
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile \
	  --no-loadscope-reorder --durations=10

check: .venv/ready   ## the linter and the types, in seconds
	$(BIN)/ruff check --quiet fedmpi tests jobs
	$(BIN)/mypy --no-error-summary

bench: .venv/ready   ## every measurement beside its reference
	PATH="$(CURDIR)/$(BIN):$$PATH"; export PATH; \
	for name in cross-silo cross-device shapley transport memory large; do mpirun -n 3 fedmpi bench $$name || exit; done; \
	mpirun -n 33 fedmpi bench transport || exit; \
	for name in tiny step structure wire server together start crowd sparse; do fedmpi bench $$name || exit; done

install: .venv/ready ## only set up .venv

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "installing torch, an MPI and the rest into .venv: some minutes and 6 GB, once"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[mpi,test]'
	touch $@

clean:               ## remove .venv and caches
	rm -rf .venv .pytest_cache .hypothesis *.egg-info build
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help run check test bench install clean
