# Targets for people. What must hold before a change goes in is .ci/run.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
APIDIFF = golang.org/x/exp/cmd/apidiff@v0.0.0-20261113113407-e3970619a1a4
PUBLIC = admin fleet kernel kernel/kerneltest metadata retry rpc rpc/codec status
CYCLONEDX = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
# The same bytes on every machine, from a clone or an archive: no paths, no commit, no C.
RELEASE_BUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false
FUZZTIME ?= 200000x
BENCH ?= .

.PHONY: help test race lint fuzz api models demo bench binary reproducible sbom check

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

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
		(cd "$$dir" && go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=20x .) || exit 1; \
	done

api: ## accept the public packages as they are: docs/api
	go test ./internal/arch -run API -update-api
	@for p in $(PUBLIC); do \
		file=docs/api/$$(echo $$p | tr / _).export; \
		go run $(APIDIFF) -w $$file github.com/sluicerpc/sluice/$$p || exit 1; \
		for dir in "$(CURDIR)" "$$(go env GOROOT)" "$$(go env GOMODCACHE)"; do \
			DIR="$$dir" perl -pi -e 's/\Q$$ENV{DIR}\E/"." x length $$ENV{DIR}/ge' $$file || exit 1; \
		done; \
	done # without the paths of the machine: apidiff reads what stands at them, not where

models: ## check the credit rules in every order of events (needs spin and gcc)
	SLUICE_REQUIRE_SPIN=1 go test -count=1 -v ./models

demo: ## run the echo server and a client in one process
	go run ./cmd/echo demo

bench: ## run the micro benchmarks that match BENCH (all)
	go test -run='^$$' -bench='$(BENCH)' -benchmem ./...

binary: ## build bin/echo as for a release
	$(RELEASE_BUILD) -o bin/echo ./cmd/echo

reproducible: ## build echo from the last commit twice, with nothing in common, and compare
	@set -e; tmp=$$(mktemp -d); trap 'chmod -R u+w "$$tmp"; rm -rf "$$tmp"' EXIT; \
	for dir in "$$tmp/one" "$$tmp/a longer/path/two"; do \
		git clone --quiet . "$$dir"; \
		(cd "$$dir" && GOCACHE="$$dir/.cache" $(RELEASE_BUILD) -o echo ./cmd/echo && sha256sum echo); \
	done; \
	cmp "$$tmp/one/echo" "$$tmp/a longer/path/two/echo" && echo "the two are the same"

sbom: ## list what the last commit is made of, with licences: bin/*.cdx.json
	@set -e; mkdir -p bin; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	git clone --quiet . "$$tmp/clone"; \
	go run $(CYCLONEDX) mod -json -licenses -noserial -notimestamp -output bin/sluice.cdx.json "$$tmp/clone"; \
	CGO_ENABLED=0 go run $(CYCLONEDX) app -json -licenses -std -noserial -notimestamp -main cmd/echo -output bin/echo.cdx.json "$$tmp/clone"; \
	ls -l bin/*.cdx.json

check: ## run everything, as CI does
	.ci/run
