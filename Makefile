# Targets for people. What must hold before a change goes in is .ci/run.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 200000x
BENCH ?= .

.PHONY: help test race lint fuzz models demo bench check

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{ printf "  %-8s %s\n", $$1, $$2 }'

test: ## run the tests
	go test ./...

race: ## run the tests with the race detector
	go test -race ./...

lint: ## check format, go vet, staticcheck and the repository's own rules
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	go test ./internal/arch

fuzz: ## run every fuzz target, each for FUZZTIME (200000x: runs)
	@grep -rEo --include='*_test.go' --exclude-dir=benchmarks '^func Fuzz[A-Za-z0-9_]*' . | \
	sed -E 's|^(.*)/[^/]*:func (.*)$$|\1 \2|' | sort -u | \
	while read -r dir target; do \
		echo "$$dir $$target"; \
		go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=20x "$$dir" || exit 1; \
	done

models: ## check the credit rules in every order of events (needs spin and gcc)
	SLUICE_REQUIRE_SPIN=1 go test -count=1 -v ./models

demo: ## run the echo server and a client in one process
	go run ./cmd/echo demo

bench: ## run the micro benchmarks that match BENCH (all)
	go test -run='^$$' -bench='$(BENCH)' -benchmem ./...

check: ## run everything, as CI does
	.ci/run
