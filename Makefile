# The front door: `make demo` and `make test` set up everything that they need.

CARGO ?= cargo
export PATH := $(HOME)/.cargo/bin:$(PATH)
LAB   := tests/lab/lab

.DEFAULT_GOAL := help
.PHONY: help tools setup build release sbom test test-clouds soak unit fuzz lint docs deny bench bench-worker demo sample clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

tools: ## Install what building needs (a C compiler, headers, Rust), and nothing else
	@tests/setup.sh

setup: tools ## Install what testing needs, too (Debian packages, a cached virtual environment)
	@$(LAB) setup

build: setup ## Build for development
	$(CARGO) build --workspace --all-targets

release: tools ## Build target/release/cinder-backup and target/release/cinderblock
	$(CARGO) build --locked --release --bins

sbom: ## Write target/cinderblock.cdx.json, the bill of materials of both programs (CycloneDX)
	@tests/sbom.py

demo: setup release ## Back up and restore a volume through a real Cinder, then take everything down
	@tests/demo.sh

test: setup ## Run every check and test, on real parts
	@tests/run.sh

test-clouds: setup ## The longer tests: parity with Python's worker, mixed fleets, Kolla's broker, older Cinders
	@tests/run.sh clouds

soak: setup ## Operations and faults at random, for SOAK_ROUNDS rounds (100, some 40 s each) of SOAK_SEED
	@tests/run.sh soak

unit: ## Run the tests that need no real parts
	$(CARGO) test --workspace --lib --bins

fuzz: ## Hostile input for every decoder, FUZZ_SECONDS each (60)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} tests/fuzz.sh

lint: ## Formatting, clippy, documentation, dependencies
	@tests/lint.sh

bench: setup release ## Our diff transfer against `rbd export-diff | rbd import-diff`, in turns
	@tests/bench.sh

bench-worker: setup release ## Our worker against Python's, in turns, in a real cloud
	@tests/bench.sh worker

sample: ## Write etc/cinder-backup.conf.sample anew from the option registry
	UPDATE_SAMPLE=1 $(CARGO) test -q -p cinderblock-api-compat --test sample_config

clean: ## Remove build products
	$(CARGO) clean
