# One door: people and .ci/run call the same targets. Needs GNU make and Python 3.11, 3.12 or 3.13.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TORCH := torch==2.13.0
# PyTorch's builds without CUDA: a tenth of the size, and all that an export needs.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
UV := uv==0.13.9
PIP_AUDIT := pip-audit==2.10.1

ifndef PYTHON
PYTHON := $(or $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done),python3)
endif

# What is given to make is taken as it stands, with its $ and quotes. An option counts only where it is given to make:
# shells export names like NAME for other ends.
GIVEN := $(foreach variable,$(.VARIABLES),$(if $(filter command,$(origin $(variable))),$(variable)))
$(foreach variable,$(GIVEN),$(eval override export $(variable) := $$(value $(variable))))
quoted = '$(subst ','\'',$1)'
given = $(if $(filter $1,$(GIVEN)),--$2=$(call quoted,$($1)))

# Which options a target takes. All others are refused, unless they are settings (docs/settings.md).
TARGETS := help run test test-compose check contract bench plan chaos fuzz overload export-model doctor gpu-check evaluate \
  setup develop lock audit kustomize clean
OF_run := MODEL WEIGHTS NAMES PORT WORKERS GATEWAYS
OF_test := ARGS
OF_test-compose := TESTS COMPOSE
OF_contract := EXAMPLES
OF_bench := MODEL WEIGHTS PORT WORKERS PEERS QUICK ARGS
OF_plan := RATE TRITON TRITON_MS KB P99 LINK DISK REPLICAS ELSEWHERE
OF_chaos := MODEL WEIGHTS PORT WORKERS ARGS
OF_fuzz := $(OF_chaos)
OF_overload := $(OF_chaos)
OF_AN_EXPORT := DEVICE FORMAT PRECISION IMGSZ SQUARE ROWS BATCH INSTANCES DELAY_US KEEP OPTIMIZE
OF_export-model := MODEL WEIGHTS NAME NAMES $(OF_AN_EXPORT) REPOSITORY LIST USE ROLLBACK UNLOAD DELETE TRITON_URL
OF_doctor := MODEL REPOSITORY TRITON_URL
OF_gpu-check := MODEL WEIGHTS DATA WORKERS QUICK ARGS
OF_evaluate := DATA SPLIT MODEL WEIGHTS NAMES SERVED_ONLY TRITON_URL ARGS
OF_lock := UPGRADE
OPTIONS := $(sort $(foreach target,$(TARGETS),$(OF_$(target))))
HINT_NAME := its MODEL= is the name that an export gave with NAME=
HINT_REPOSITORY := MODEL_REPOSITORY= is the setting for that
HINT_run = $(if $(filter $1,$(OF_AN_EXPORT)),export with it first: `make export-model $1=...`; then `make run MODEL=` with the name of that model)
takers = $(patsubst %,`make %`,$(strip $(foreach target,$(TARGETS),$(if $(filter $1,$(OF_$(target))),$(target)))))
hint = $(or $(HINT_$1),$(call HINT_$(firstword $(MAKECMDGOALS)),$1),it is for $(call takers,$1))
unfit = $(filter-out $(foreach goal,$(MAKECMDGOALS),$(OF_$(goal))),$(foreach option,$1,$(if $(value $(option)),$(option))))
REFUSED := $(firstword $(call unfit,$(filter $(OPTIONS),$(GIVEN))))
# Whatever the documentation names in capitals may be a setting; the word `imgsz` is none.
OTHERS := $(filter-out $(OPTIONS) %_proxy,$(GIVEN))
UNKNOWN := $(if $(and $(OTHERS),$(wildcard docs)),$(shell for each in $(OTHERS); do \
  [[ $$each =~ ^[A-Z] ]] && grep -sqwF -- $$each README.md Makefile docs/*.md || echo $$each; done))
ifeq (,$(if $(MAKECMDGOALS),$(filter-out $(TARGETS),$(MAKECMDGOALS)),none))
ifneq (,$(REFUSED))
$(error `make $(MAKECMDGOALS)` takes no $(REFUSED)=; $(call hint,$(REFUSED)))
endif
ifneq (,$(UNKNOWN))
$(error `make $(MAKECMDGOALS)` knows no $(firstword $(UNKNOWN))=; its options are \
  $(foreach goal,$(MAKECMDGOALS),$(OF_$(goal))); a variable for another program goes before `make`)
endif
endif

# What can be written into a rule; make has no quotes for the others.
plain = $(if $(word 2,$1)$(strip $(foreach character,: ; % = | \#,$(findstring $(character),$1))),,$1)

# MODEL's default is the name that an export of WEIGHTS takes.
ifneq (,$(if $(MODEL),,$(and $(WEIGHTS),$(filter-out export-model,$(MAKECMDGOALS)))))
override MODEL := $(shell $(PYTHON) -m export.model_name $(call quoted,$(value WEIGHTS)) 2>&1)
ifneq (1,$(words $(MODEL)))
$(error $(MODEL))
endif
endif
MODEL ?= yolov5n
PORT ?=
WORKERS ?=
REDIS_URL ?=
export MODEL WEIGHTS PORT WORKERS REDIS_URL

REPOSITORY_MODEL = model_repository/$(call plain,$(MODEL))
ONNX = $(or $(lastword $(wildcard $(REPOSITORY_MODEL)/*/model.onnx)),$(REPOSITORY_MODEL)/1/model.onnx)
PY := .venv/bin/python
PIP := -m pip --disable-pip-version-check install
SAID := || { echo "make: installing did not succeed (see above); check the network, then run the same command again" >&2; exit 1; }

.PHONY: $(TARGETS)

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24
	@echo "  MODEL=yolov5s, WEIGHTS=path.pt, NAMES=a,b, PORT=5000, WORKERS=2, GATEWAYS=1 and settings (docs/settings.md) go with make run"

run: setup ## set up if needed, start the whole stack, stop with Ctrl-C
	@exec env EXPORT_NAMES=$(call quoted,$(if $(filter NAMES,$(GIVEN)),$(NAMES))) $(PY) -m local --export

test: develop ## set up if needed, run every test (ARGS="-k name" picks)
	@$(PY) -m pytest $(ARGS)

COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
test-compose: ## the tests in containers against the composed stack (TESTS=tests takes all); removes all after it
	@trap '$(COMPOSE) -p yolo-tests -f docker-compose.test.yml down --volumes' EXIT; \
	  $(COMPOSE) -p yolo-tests -f docker-compose.test.yml up --build --exit-code-from tests

check: .venv/.develop ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

contract: develop ## several thousand requests made from /openapi.json against the running service
	@SCHEMATHESIS_EXAMPLES=$(or $(EXAMPLES),400) $(PY) -m pytest -s -m long tests/integration/test_schemathesis.py

# Other servers to compare with: a folder of their sources, not part of this project.
PEERS ?= ../shared/peers
export PEERS QUICK

bench: develop $(ONNX) $(if $(wildcard $(PEERS)/common.py),.venv-peers/.ready) ## measure: five minutes, QUICK=1 one
	@$(PY) -m benchmarks $(ARGS)

plan: .venv/.ready ## what RATE= images/s need with a model of which one Triton runs TRITON= (P99=ms, KB=, LINK=Gbit/s, REPLICAS=)
	@$(PY) -m benchmarks.plan $(call given,RATE,rate) $(call given,TRITON,triton) $(call given,TRITON_MS,triton-ms) \
	  $(call given,KB,kb) $(call given,P99,p99) $(call given,LINK,link) $(call given,DISK,disk) \
	  $(call given,REPLICAS,replicas) $(call given,ELSEWHERE,elsewhere)

chaos: develop $(ONNX) ## prove that nothing accepted is lost, whatever dies (ARGS=--quick)
	@$(PY) -m reliability $@ $(ARGS)

fuzz: develop $(ONNX) ## prove that no file does harm: a corpus and 10,000 corrupted ones (ARGS=--quick)
	@$(PY) -m reliability $@ $(ARGS)

overload: develop $(ONNX) ## prove that the service stays healthy at ten times its capacity (ARGS=--quick)
	@$(PY) -m reliability $@ $(ARGS)

EXPORT = $(PY) -m export $(call given,MODEL,model) $(call given,WEIGHTS,weights) $(call given,NAME,name) $(call given,NAMES,names) \
  $(call given,DEVICE,device) $(call given,FORMAT,format) $(call given,PRECISION,precision) $(call given,IMGSZ,imgsz) \
  $(call given,SQUARE,square) $(call given,ROWS,rows) $(call given,BATCH,batch) $(call given,INSTANCES,instances) \
  $(call given,DELAY_US,delay-us) $(call given,KEEP,keep) $(call given,OPTIMIZE,optimize) \
  $(call given,REPOSITORY,repository) $(call given,USE,use) $(call given,ROLLBACK,rollback) \
  $(call given,UNLOAD,unload) $(call given,DELETE,delete) $(call given,LIST,list)

export-model: .venv/.ready ## publish the next version of MODEL= or WEIGHTS= (LIST=1, USE=2, ROLLBACK=1: no export)
	@$(EXPORT)

doctor: .venv/.ready ## check whether the running Triton does what people believe
	@$(PY) -m doctor $(call given,MODEL,model) $(call given,REPOSITORY,repository)

gpu-check: setup ## on a host with a GPU and Docker: export, verify and measure every way to serve (an hour; DATA=dir)
	@$(PY) -m benchmarks.gpu --model=$(call quoted,$(MODEL)) $(call given,WEIGHTS,weights) $(call given,DATA,data) \
	  $(call given,WORKERS,workers) $(ARGS)

evaluate: .venv/.ready ## mAP of the served model over DATA= (SPLIT=val), next to PyTorch's; SERVED_ONLY=1 without
	@$(PY) -m evaluation $(call given,DATA,data) $(call given,SPLIT,split) $(call given,MODEL,model) \
	  $(call given,WEIGHTS,weights) $(call given,NAMES,names) $(call given,SERVED_ONLY,served-only) $(ARGS)

$(ONNX): $(call plain,$(WEIGHTS)) | .venv/.ready
	@$(PY) -m export --name=$(call quoted,$(MODEL)) \
	  $(if $(WEIGHTS),--weights=$(call quoted,$(WEIGHTS)),--model=$(call quoted,$(MODEL)))

setup: .venv-triton/.ready .venv/.ready ## make both environments, with what running needs

develop: setup .venv/.develop ## the same, with what tests, checks and benchmarks need

# A stamp is written last: an environment without it is completed by the next run, one whose Python is gone made anew.
$(shell for venv in .venv .venv-triton; do test -x $$venv/bin/python || rm -f $$venv/.ready $$venv/.develop; done)
.venv/.ready: requirements/run.txt
	@$(call make-venv,.venv)
	@if $(PY) -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1] + "/torch/", timeout=10)' "$(TORCH_INDEX)" 2>/dev/null; then \
	  echo "Installing PyTorch without CUDA from its own index, about 200 MB, into .venv (once) ..."; \
	  $(PY) $(PIP) --index-url "$(TORCH_INDEX)" "$(TORCH)"; \
	else \
	  echo "$(TORCH_INDEX) does not answer. Installing the PyTorch that pip finds into .venv (once);" \
	    "on Linux that may be the build with CUDA, several GB ..."; \
	  $(PY) $(PIP) "$(TORCH)"; \
	fi $(SAID)
	@echo "Installing what running needs ..."
	@$(PY) $(PIP) -q --no-deps --require-hashes -r $< $(SAID)
	@touch $@

.venv/.develop: requirements/all.txt .venv/.ready
	@echo "Installing what tests, checks and benchmarks need into .venv (once) ..."
	@$(PY) $(PIP) -q --no-deps --require-hashes -r $< $(SAID)
	@touch $@

.venv-triton/.ready: requirements/triton.txt
	@$(call make-venv,.venv-triton)
	@.venv-triton/bin/python -m local.wheel
	@echo "Installing Triton into .venv-triton (once) ..."
	@.venv-triton/bin/python $(PIP) --no-deps --require-hashes -r $< $(SAID)
	@touch $@

# It sees the packages of .venv too, so that all run on the same PyTorch and ONNX Runtime. ultralytics asks which version
# of torchvision there is, and uses none here.
.venv-peers/.ready: requirements/peers.txt .venv/.develop
	@$(call make-venv,.venv-peers)
	@cd .venv-peers/lib/python3.*/site-packages && ls -d "$(CURDIR)"/.venv/lib/python3.*/site-packages > stack.pth && \
	  mkdir -p torchvision-0.28.0.dist-info && printf 'Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n' > torchvision-0.28.0.dist-info/METADATA
	@.venv-peers/bin/python $(PIP) -q -r $< $(SAID)
	@touch $@

define make-venv
$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || \
  { echo "make: $(PYTHON) is not Python 3.11, 3.12 or 3.13; name one with PYTHON=python3.11" >&2; exit 1; }; \
rm -f $1/.ready $1/.develop; $1/bin/python -c '' 2>/dev/null || rm -rf $1; $(PYTHON) -m venv $1 || \
  { echo "make: $(PYTHON) could not make $1 (see above); on Debian and Ubuntu install python3-venv" >&2; exit 1; }
endef

COMPILE = .venv-lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --custom-compile-command "make lock" --overrides requirements/overrides.txt

lock: ## renew the lock files (UPGRADE=1 takes newer releases)
	@test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python $(PIP) -q $(UV); }
	$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --extra tracing -o requirements/serve.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --extra tracing --extra local --extra export --extra dev -c requirements/serve.txt -o requirements/all.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --extra tracing --extra local --extra export -c requirements/all.txt \
	  --overrides requirements/run-overrides.txt -o requirements/run.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --extra export -c requirements/all.txt \
	  --overrides requirements/run-overrides.txt -o requirements/export.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) --no-deps requirements/triton.in -o requirements/triton.txt

LOCKS := $(addprefix requirements/,serve.txt all.txt run.txt export.txt triton.txt)

audit: ## ask advisory databases about every locked package; exit 1 for findings, 2 when none can be asked
	@test -x .venv-lock/bin/pip-audit || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python $(PIP) -q $(PIP_AUDIT) $(SAID); }
	@$(PYTHON) -m local.audit --pip-audit .venv-lock/bin/pip-audit --pin $(TORCH) $(LOCKS)

kustomize: develop ## render deploy/kustomize/base from the chart
	@$(PY) deploy/kustomize/render.py

clean: ## remove environments, caches and what runs left; models and weights stay
	rm -rf .venv .venv-triton .venv-peers .venv-lock .run .mypy_cache .ruff_cache .pytest_cache
