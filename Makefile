# make demo         install everything and run CuVLER on generated scenes
# make demo-cutler  also run CutLER, with results in the same tables
# make test         install everything and run the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup dev demo demo-cutler test slurm-test gpu-test gpu-benchmark fault-test benchmark docs lint format lock clean
.DELETE_ON_ERROR:

setup: $(VENV)/installed

# The tools of tests, checks and benchmarks, in addition to setup.
dev: $(VENV)/installed-dev

# The lock pins uv too; pip only installs the first one. The lock has no registry address:
# packages come from the index that pip and uv are configured with.
$(VENV)/installed: requirements.lock pyproject.toml $(wildcard packaging/detectron2/*.py) packaging/detectron2/pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is required: make PYTHON=python3.12 $(MAKECMDGOALS)')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps ./packaging/detectron2 --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --requirement requirements-dev.lock
	touch $@

demo: setup demo/val/annotations.json
	snakemake all --configfile config/laptop.yaml config/demo.yaml
	@echo "The report: results/demo/report.html"

demo-cutler: setup demo/val/annotations.json
	snakemake all --configfile config/laptop.yaml config/demo.yaml --config 'recipe=[cuvler, cutler]'
	@echo "The report: results/demo/report.html"

# The annotations of val are written last, so that they stand for the whole demo dataset.
demo/val/annotations.json: demo_scenes/*.py | setup
	python -m demo_scenes --output demo

# Two processes with one thread each, for the two cores of CI; small models gain nothing from more.
test: dev
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slurm and not gpu"

# On a SLURM cluster started on this machine, from Debian's packages: half an hour; needs root.
slurm-test: dev
	pytest -m slurm

# On a machine with an NVIDIA GPU; tests of several GPUs are skipped where there is one. The second
# run checks that streams wait for each other's tensors.
gpu-test: dev
	pytest -m gpu
	TORCH_CUDA_SANITIZER=1 pytest -m gpu tests/gpu/test_eigenvectors.py -k extraction

# The tables of GPUs: extraction by each ViT in both precisions, and the published detector.
gpu-benchmark: dev
	python benchmarks/eigenvectors.py --backbones all --precision float32
	python benchmarks/eigenvectors.py --backbones all --precision float16
	python benchmarks/detector.py --detector-config votecut_cad --num-gpus 1 --batch 2 --workers 4

# Damage every kind of file and kill every stage, at random: make fault-test FAULTS="--seed 1".
fault-test: dev
	OMP_NUM_THREADS=1 python -m tests.faults $(FAULTS)

# The tables of README's performance section.
benchmark: dev
	python benchmarks/eigenvectors.py
	python benchmarks/precision.py
	python benchmarks/pseudo_masks.py --scenes tests/reference/votecut --maps tests/reference/votecut
	python benchmarks/evaluation.py
	python benchmarks/detector.py
	python benchmarks/photographs.py
	python benchmarks/annotations.py --images 130000 --masks 600000
	python benchmarks/report.py --images 128000 --masks 600000 --shards 32
	python benchmarks/training_annotations.py --images 130000 --masks 600000
	python benchmarks/planning.py

# Serve the documentation locally, rebuilt when its pages change.
docs: dev
	mkdocs serve

lint: dev
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check workflow
	snakemake --lint
	mkdocs build --quiet --strict --site-dir build/site

format: dev
	ruff check --fix .
	ruff format .
	snakefmt workflow
	python docs/configuration.py

# Run after a change of dependencies in pyproject.toml; add --upgrade for newer versions.
lock: PINNED = --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url
lock: setup
	uv pip compile $(PINNED) --all-extras --group setup --no-emit-package detectron2 \
		pyproject.toml --output-file requirements.lock
	uv pip compile $(PINNED) --group dev --constraints requirements.lock \
		--output-file requirements-dev.lock

clean:
	rm -rf $(VENV) demo results/demo
