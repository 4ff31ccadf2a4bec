# Everything starts here. `make demo` and `make test` need a Debian-like system with
# rustup and root; they install what is missing through apt and build first.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
TEST_THREADS ?= 4
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
# Packages whose tests need root and the real kernel.
KERNEL_PACKAGES := trireme-bpf trireme-netns trireme-nfqueue trireme-conntrack trireme-sock-diag trireme-tests-netns trireme-tests-differential

.PHONY: help deps build demo test test-unit test-kernel test-guest test-crashes test-all bench bench-quick bench-probe instructions fmt lint check docs deny vectors bpf fuzz clean

help: ## shows this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

deps: ## installs the packages that build, demo and tests need (apt)
	@.ci/deps

build: deps ## builds the program: target/release/trireme
	$(CARGO) build --release --locked -p trireme-cli

demo: build ## runs the 3-tier demonstration in network namespaces and prints the matrix
	target/release/trireme demo

test: deps ## runs the push tier: unit, property, simulator, vectors, kernel (root)
	$(CARGO) test --workspace --locked --no-fail-fast -- --test-threads $(TEST_THREADS)

test-unit: ## runs only what needs no root
	$(CARGO) test --workspace --locked $(addprefix --exclude ,$(KERNEL_PACKAGES))

test-kernel: ## runs only the tests on the real kernel (root, network namespaces)
	$(CARGO) build --locked -p trireme-cli
	$(CARGO) test --locked $(addprefix -p ,$(KERNEL_PACKAGES)) -- --test-threads $(TEST_THREADS)

test-guest: deps ## runs kernel tests on Debian 12's own kernel, in an emulated machine (root)
	@.ci/deps guest
	tests/guest/run

test-crashes: ## kills agents a thousand times under load (root)
	$(CARGO) build --locked -p trireme-cli
	TRIREME_KILLS=1000 $(CARGO) test --locked -p trireme-tests-netns --test crashes

test-all: test test-crashes test-guest fuzz ## runs the push tier and the long tiers

bench: build ## measures what enforcement costs and writes docs/benchmarks.md (root, 20 minutes)
	$(CARGO) bench --locked -q -p trireme-policy --bench decide
	$(CARGO) run --release --locked -q -p trireme-bench -- --program $(RELEASE)/trireme run \
	  --criterion $(TARGET)/criterion --json $(TARGET)/bench.json --table docs/benchmarks.md

bench-quick: build ## the main cases in a minute, one JSON line for each (root)
	@$(CARGO) build --release --locked -q -p trireme-bench
	@$(RELEASE)/trireme-bench --program $(RELEASE)/trireme quick

bench-probe: build ## ten seconds: connections per second over no hooks, nanoseconds per program (root)
	@$(CARGO) build --release --locked -q -p trireme-bench
	@$(RELEASE)/trireme-bench --program $(RELEASE)/trireme probe

instructions: deps ## counts the instructions of the pure core and compares them with bench/instructions/budget.toml
	@$(CARGO) build --release --locked -q -p trireme-instructions
	@$(RELEASE)/trireme-instructions check bench/instructions/budget.toml

fuzz: ## runs every fuzz target for FUZZ_SECONDS (default 600) each
	fuzz/run

fmt: ## formats the code
	$(CARGO) fmt --all

lint: ## clippy, warnings denied
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

docs: ## builds the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --document-private-items

deny: ## checks licences, bans and sources of all dependencies
	$(CARGO) fetch --locked --quiet
	$(CARGO) deny --offline check licenses bans sources

check: ## checks layers, unsafe, purity of the core, file sizes, generated files
	$(CARGO) run --locked -q -p xtask -- check

vectors: ## regenerates docs/spec/vectors
	$(CARGO) run --locked -q -p xtask -- vectors

bpf: deps ## rebuilds the checked-in BPF object
	$(CARGO) run --locked -q -p xtask -- bpf

clean: ## removes build products
	$(CARGO) clean
