# One command for people and for CI. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo serve check test test-all bench

PYTHON ?= python3
CARGO ?= cargo

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|' 2>/dev/null \
		|| grep -E '^[a-z-]+:.*##' Makefile

setup: ## fetch what the build does not: ONNX Runtime; nothing is done twice
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy
	@$(PYTHON) setup/onnxruntime.py

demo: setup ## two rigs, real and simulated, through a server of their own
	@$(PYTHON) setup/receptor.py
	$(CARGO) run --release -- demo

serve: setup ## serve models/ on 127.0.0.1:8080 (HTTP) and :8081 (gRPC)
	$(CARGO) run --release -- serve

check: ## form, lints, docs, layers; under a minute when warm
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --lib --quiet
	$(CARGO) test --quiet --test it layers

test: setup check ## everything that must be green before a change is shown
	@$(PYTHON) setup/rig.py
	$(CARGO) test

test-all: test ## also what takes minutes, one after the other since deadlines are measured
	$(CARGO) test --release
	$(CARGO) test --release -- --ignored --test-threads=1

bench: setup ## latency and throughput beside the floors, as ratios
	$(CARGO) run --release -- bench
