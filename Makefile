# Two commands set everything up: `make demo` and `make test`.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
MODELS ?= data/models
MNIST  ?= data/mnist
NETWORK_A = mnist_netA_mlp_784_512_512_10.onnx

.PHONY: help demo docs test test-all test-train fuzz mutate bench-finetune lint bench-engine bench-accuracy bench-quantize bench-unrolled clean

help:
	@echo "make demo            a trained network to a verified bitstream, no board needed"
	@echo "make docs            the documentation as a site in build/site; warnings are errors"
	@echo "make test            lint, types and tests (under 15 minutes on two cores)"
	@echo "make test-all        the same with the long builds (about two hours), folder by folder: started"
	@echo "                     again it goes on after those that passed; with -k in spite of failures"
	@echo "make test-train      tests of fine-tuning; installs PyTorch"
	@echo "make fuzz            damaged files, folders and frames, random networks: an hour; goes on where it was"
	@echo "make mutate          changed sources and netlists, of which each is to fail a test of its own:"
	@echo "                     some hours; goes on where it was [MUTANTS=200 of sources of each kind,"
	@echo "                     NETLISTS=500, MINUTES=60 of the processor for each of the two]"
	@echo "make bench-accuracy  accuracy after quantization, beside other codes: MODELS=FOLDER MNIST=FOLDER"
	@echo "                     [KWS=FOLDER CIFAR=FILE.npz AD=FOLDER]"
	@echo "make bench-finetune  accuracy after training: MODELS=FOLDER MNIST=FOLDER"
	@echo "make bench-quantize  time and memory of the pyramid search"
	@echo "make bench-unrolled  adders of unrolled layers beside da4ml's and plain trees; installs da4ml"
	@echo "make bench-engine    the engine beside int8: MODELS=FOLDER MNIST=FOLDER [QUICK=--quick]"
	@echo "make clean           removes the environment and outputs"

$(VENV)/.installed-demo: pyproject.toml
	@echo "pvq-hw: making an environment in $(VENV): about 225 MB to download, a minute;"
	@echo "pvq-hw: the first run also warms up the tools once (1 to 5 minutes, 240 MB of cache)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pvq-hw: Python 3.11 or newer is needed: set PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "pvq-hw: 'python3 -m venv' failed: on Debian and Ubuntu, apt-get install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[build,sim]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pvq-hw: Python 3.11 or newer is needed: set PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "pvq-hw: 'python3 -m venv' failed: on Debian and Ubuntu, apt-get install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

demo: $(VENV)/.installed-demo
	@$(BIN)/pvq-hw demo

$(VENV)/.installed-docs: pyproject.toml
	@$(PYTHON) -m venv $(VENV) || { echo "pvq-hw: 'python3 -m venv' failed: on Debian and Ubuntu, apt-get install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

docs: $(VENV)/.installed-docs
	@$(BIN)/python -m benchmarks.trust
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "pvq-hw: open build/site/index.html"

lint: types style imports

types: $(VENV)/.installed-test
	@$(BIN)/mypy

style: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

imports: $(VENV)/.installed-test
	@$(BIN)/lint-imports --no-logo --no-cache
.PHONY: types style imports

iverilog:
	@command -v iverilog >/dev/null || { \
	  SUDO=; [ "$$(id -u)" = 0 ] || SUDO=sudo; \
	  echo "pvq-hw: installing Icarus Verilog with apt-get"; \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq iverilog >/dev/null; } \
	|| { echo "pvq-hw: Icarus Verilog is needed for the tests: install iverilog"; exit 2; }
.PHONY: iverilog

# Types take most of a minute of one core: they are looked at beside the tests, so that no core waits.
test: $(VENV)/.installed-test iverilog
	@$(MAKE) --no-print-directory -j 2 style imports warm
	@$(MAKE) --no-print-directory -j 2 types quick

quick: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not torch" -q
.PHONY: quick

# What passed is not run again until a source changes, or until all has passed.
PASSED  = .test-all
SHARDS  = $(filter-out support __pycache__,$(notdir $(patsubst %/,%,$(wildcard tests/*/))))
SOURCES = $(shell find pvq_hw gateware sim tests benchmarks docs README.md pyproject.toml -type f \
            -not -name '*.pyc' -not -name '*.nb?')

test-all: lint $(SHARDS:%=$(PASSED)/%) $(PASSED)/pages
	@rm -rf $(PASSED)
	@echo "pvq-hw: all tests passed"

warm: $(VENV)/.installed-test iverilog
	@$(BIN)/python -m pvq_hw doctor --warm-up
.PHONY: warm

$(PASSED)/pages: $(SOURCES) | warm
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not torch" -q tests/test_*.py
	@mkdir -p $(PASSED) && touch $@

$(PASSED)/%: $(SOURCES) | warm
	@echo "pvq-hw: tests/$*"
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not torch" -q tests/$*
	@mkdir -p $(PASSED) && touch $@

$(VENV)/.installed-train: $(VENV)/.installed-test
	@echo "pvq-hw: installing PyTorch; TORCH='--index-url URL' takes another build, such as CPU only"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train]' $(TORCH)
	@touch $@

test-train: $(VENV)/.installed-train
	@$(BIN)/python -m pytest -m torch -q

fuzz: $(VENV)/.installed-test
	@PYTHONPATH=tests/support $(BIN)/python -m benchmarks.fuzz

MUTANTS ?= 200
NETLISTS ?= 500
mutate: $(VENV)/.installed-test iverilog
	@$(BIN)/python -m benchmarks.mutate --mutants $(MUTANTS) $(MINUTES:%=--minutes %)
	@PYTHONPATH=tests/support $(BIN)/python -m benchmarks.mutate_verilog --mutants $(NETLISTS) $(MINUTES:%=--minutes %)

bench-finetune: $(VENV)/.installed-train
	@test -f "$(MODELS)/$(NETWORK_A)" || { echo "pvq-hw: $(NETWORK_A) is needed: set MODELS=FOLDER (and MNIST=FOLDER, its idx files)"; exit 2; }
	@$(BIN)/python -m benchmarks.finetune --models "$(MODELS)" --mnist "$(MNIST)"
	@$(BIN)/python -m benchmarks.limits --models "$(MODELS)" --mnist "$(MNIST)" $(KWS:%=--kws %) \
	    $(CIFAR:%=--cifar %) --page docs/benchmarks-limits.md

bench-accuracy: $(VENV)/.installed-test
	@test -f "$(MODELS)/$(NETWORK_A)" || { echo "pvq-hw: $(NETWORK_A) is needed: set MODELS=FOLDER (and MNIST=FOLDER, its idx files)"; exit 2; }
	@$(BIN)/python -m benchmarks.accuracy --models "$(MODELS)" --mnist "$(MNIST)" \
	    -o benchmarks/results/accuracy.json --page docs/accuracy.md --chart docs/accuracy.svg
	@$(BIN)/python -m benchmarks.anchors --models "$(MODELS)" --mnist "$(MNIST)" $(KWS:%=--kws %) \
	    --page docs/benchmarks-codes.md
	@$(BIN)/python -m benchmarks.reach --models "$(MODELS)" --mnist "$(MNIST)" $(KWS:%=--kws %) \
	    $(CIFAR:%=--cifar %) $(AD:%=--ad %) --page docs/benchmarks-reach.md
	@$(BIN)/python -m benchmarks.promise --models "$(MODELS)" --mnist "$(MNIST)" $(KWS:%=--kws %) \
	    $(CIFAR:%=--cifar %) --tune 200 --page docs/benchmarks-promise.md

bench-quantize: $(VENV)/.installed-test
	@$(BIN)/python -m benchmarks.quantize

$(VENV)/.installed-bench: $(VENV)/.installed-test
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

bench-unrolled: $(VENV)/.installed-bench iverilog
	@$(BIN)/python -m benchmarks.unrolled --seeds 3 --page docs/benchmarks-unrolled.md

bench-engine: $(VENV)/.installed-test
	@test -f "$(MODELS)/$(NETWORK_A)" || { echo "pvq-hw: $(NETWORK_A) is needed: set MODELS=FOLDER (and MNIST=FOLDER, its idx files)"; exit 2; }
	@$(BIN)/python -m benchmarks.engine --model "$(MODELS)/$(NETWORK_A)" --mnist "$(MNIST)" $(QUICK)

clean:
	rm -rf $(VENV) $(PASSED) demo-out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
