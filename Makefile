# fleetbus: `make` lists what there is to do.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

GO ?= go
# The version that the binary reports: the tag and commit, or "dev" without git.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)
# How long `make fuzz` runs each fuzz test.
FUZZTIME ?= 10s
# SEED and DURATION are those of sim, chaos and soak; bash gives SECONDS a meaning of its own.
# Disturbances in one play of `make sim`.
STEPS ?= 60
# The linter's version is pinned: a new one may find new faults, and that is a change of its own.
LINT_VERSION := v2.15.0
LINT := .bin/golangci-lint-$(LINT_VERSION)
# What npm leaves when it has installed the packages of the lock files.
NODE_MODULES := testing/node/node_modules/.package-lock.json examples/typescript/node_modules/.package-lock.json

.PHONY: help build demo test race fuzz bench replay chaos soak e2e sim archtest lint cross check deps dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/fleetbus
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/fleetbus ./cmd/fleetbus

demo: build ## a fleet of real processes, faults included, under a minute; exits 1 if a request was lost or done twice
	bin/fleetbus demo

# The tests with many processes come last and alone: their deadlines are those of robots.
test: $(NODE_MODULES) ## all tests
	$(GO) test -timeout 5m $$($(GO) list ./... | grep -Ev '/testing/(e2e|examples)$$')
	$(GO) test -p 1 -timeout 10m ./testing/e2e ./testing/examples

race: $(NODE_MODULES) ## all tests with the race detector
	$(GO) test -race -timeout 10m $$($(GO) list ./... | grep -Ev '/testing/(e2e|examples)$$')
	$(GO) test -race -p 1 -timeout 10m ./testing/e2e ./testing/examples

fuzz: ## every fuzz test for FUZZTIME (10s)
	.ci/fuzz $(FUZZTIME)

bench: ## the Go benchmarks of all packages that have one
	$(GO) test -run '^$$' -bench . -benchmem $$(grep -rl --include='*_test.go' --exclude-dir=node_modules '^func Benchmark' . | xargs -n 1 dirname | sort -u)

replay: ## an hour of real requests against a fleet, in virtual time; writes the table into README.md, and docs/replay.svg
	$(GO) run ./testing/replay --readme README.md --svg docs/replay.svg

chaos: ## a fleet of real processes under faults, judged by its histories: SEED=n (else made up), DURATION=180s
	$(GO) run ./testing/chaos $(if $(SEED),--seed $(SEED)) --duration $(or $(DURATION),180s) $(if $(PLANT),--plant $(PLANT))

soak: ## the same fleet without faults: goroutines and heap of every process must stay flat for DURATION=20m
	$(GO) run ./testing/chaos --soak --duration $(or $(DURATION),20m) $(if $(PLANT),--plant $(PLANT))

e2e: build ## the end-to-end tests that kill real processes, afresh, in detail and at full length
	FLEETBUS_ROUNDS=10 FLEETBUS_ROBOTS=50 $(GO) test -count 1 -v -timeout 20m ./testing/e2e/...

sim: ## fleets in virtual time against their invariants: 200 seeds, or SEED=n, with STEPS=60 disturbances each
	$(GO) test -count 1 -timeout 10m ./testing/sim -run TestSeeds -sim.seeds 200 -sim.steps $(STEPS) $(if $(SEED),-v -sim.seed $(SEED))

archtest: ## the shape of the module: imports, pure packages, file sizes
	$(GO) test -count 1 ./testing/archtest

lint: $(LINT) cross ## golangci-lint, with .golangci.yml; and cross
	$(LINT) run ./...

# Programs are compiled and not linked, so it takes seconds. Tests need signals, and so Unix.
cross: ## that it compiles for macOS and Windows, too
	GOOS=darwin CGO_ENABLED=0 $(GO) build ./...
	GOOS=windows CGO_ENABLED=0 $(GO) build $$($(GO) list ./... | grep -v /testing/)

check: lint archtest race demo ## lint, archtest, race and demo: run it before you push

deps: ## install what tests and benchmarks need beyond Go: Node.js with its packages, Python 3, Redis
	.ci/deps

dist: ## static binaries for linux, amd64 and arm64, in dist/
	@mkdir -p dist
	for arch in amd64 arm64; do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '-s -w $(LDFLAGS)' -o dist/fleetbus-linux-$$arch ./cmd/fleetbus; \
	done
	cd dist && sha256sum fleetbus-linux-* > SHA256SUMS && cat SHA256SUMS

clean: ## remove what was built; tools and packages stay
	rm -rf bin dist

# A fresh clone needs no `make deps` before `make test`; npm ci touches these files.
$(NODE_MODULES): %/node_modules/.package-lock.json: %/package-lock.json
	@$(MAKE) deps

$(LINT):
	GOBIN='$(CURDIR)/.bin' $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv .bin/golangci-lint $@
