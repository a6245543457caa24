# Everything a contributor runs. `make` alone lists it.

GO ?= go
SERVICES = $(GO) run ./internal/cmd/services
# Modules of their own below examples/ and bench/, such as `examples/orm`; deploy is one too.
NESTED = $(patsubst %/go.mod,%,$(wildcard examples/*/go.mod bench/go.mod))

FAULT_MINUTES ?= 20

.PHONY: help test test-go faults faults-planted test-faults test-local services demo bench-relay bench-consume bench-effect bench-peers bench-compare plots screenshots fuzz lint release sums

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-13s %s\n", $$1, $$2}'

test: ## all tests on real servers, which it fetches, starts and stops; `go test ./...` needs nothing but Go
	$(SERVICES) run -- $(MAKE) --no-print-directory test-go

test-go:
	$(GO) test -race -p 1 -timeout 20m ./... # one package at a time: they start servers
	@set -e; for m in $(NESTED); do echo "$(GO) test $$m"; (cd $$m && $(GO) test -race -timeout 20m ./...); done
	$(GO) -C deploy test ./... # nothing runs at once there, and what it imports is long in compiling with -race

faults-planted: ## the suite's own test: each bug that is planted in the product is caught (a quarter of an hour)
	@$(SERVICES) run -- true # fetches what is missing
	$(GO) test -tags faults -v -timeout 30m -run TestPlantedBugsAreCaught ./internal/faults

test-faults: ## consumers killed, frozen, flooded and cut off on real servers: some minutes, on a quiet machine
	$(SERVICES) run -- $(GO) test -race -tags faults -timeout 30m ./internal/e2e
	$(GO) test -race -tags faults -run 'RecordedTrace|PlantedMistakes' ./relay

faults: ## everything at random for FAULT_MINUTES=20: processes killed and frozen, networks cut, servers crashed; FAULT_SEED=n, FAULT_BESIDE=previous, JSON=1
	@$(SERVICES) run -- true # fetches what is missing
	@$(GO) build -o bin/faults ./internal/cmd/faults && exec bin/faults -minutes $(FAULT_MINUTES) \
		$(if $(FAULT_SEED),-seed $(FAULT_SEED)) $(if $(FAULT_BESIDE),-beside $(FAULT_BESIDE)) $(if $(JSON),-json)

test-local: ## tests with nothing but Go, and which were skipped and why
	$(GO) run ./internal/cmd/skips ./...

services: ## keep the test servers running and print their addresses
	@# Not `go run`, which fails after a Ctrl-C however well its program ended.
	@$(GO) build -o bin/services ./internal/cmd/services && exec bin/services up

demo: ## the whole way of an event, on nothing but Go
	$(GO) run ./examples/demo

bench-relay: ## the relay's figures beside their references (docs/benchmarks.md); BENCH=name, BENCH_QUICK=1, JSON=1
	@$(SERVICES) run -- $(GO) -C bench run .

bench-consume: ## the same of consumers
	@$(SERVICES) run -- $(GO) -C bench run . consume

bench-effect: ## from commit to effect: latency, rate, cost by stage, over both brokers
	@$(SERVICES) run -- $(GO) -C bench run . effect

plots: ## docs/figures/*.svg from the lines beside them
	@$(GO) -C bench run ./plots ../docs/figures

screenshots: ## docs/figures/page*.png: the web page of a live relay, in Chromium
	@OUTBOXKIT_REQUIRE_SERVICES=1 OUTBOXKIT_SCREENSHOTS=$(CURDIR)/docs/figures $(GO) test ./cmd/relay -count 1 -run '^TestPageInABrowser$$'

bench-peers: ## outboxkit beside Debezium and watermill, which it fetches; BENCH_PEERS=name
	@$(SERVICES) run -- $(GO) -C bench run . peers

bench-compare: ## Go benchmarks of the hot paths, this commit against BASE (default: main)
	@bench/compare.sh $(or $(BASE),main)

fuzz: ## what reads untrusted bytes against made-up ones, some seconds a target; FUZZTIME=10m for longer, FUZZ=package for one
	@# A number of executions, not a time: at a deadline go test may report a failure that is none.
	@set -e; for file in $$(grep -l '^func Fuzz' $$(git ls-files -co --exclude-standard '*_test.go') | grep '$(FUZZ)'); do \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$file); do \
			$(GO) test ./$$(dirname $$file) -run '^$$' -fuzz "^$$f\$$" -fuzztime $(or $(FUZZTIME),20000x); done; done

lint: ## formatting, vet, staticcheck, no time.Sleep in tests
	@files=$$(git ls-files -co --exclude-standard '*.go' | xargs -r ls 2>/dev/null | xargs -r gofmt -l); \
		test -z "$$files" || { echo "not formatted (run gofmt -w):"; echo "$$files"; exit 1; }
	@sleeps=$$(git ls-files -co --exclude-standard '*_test.go' | xargs -r grep -n 'time\.Sleep(' /dev/null); \
		test -z "$$sleeps" || { echo "tests wait for a condition, not for time:"; echo "$$sleeps"; exit 1; }
	@set -e; staticcheck=$$($(GO) -C tools tool -n staticcheck); \
		for m in . $(NESTED) deploy; do echo "vet and staticcheck $$m"; (cd $$m && $(GO) vet ./... && $$staticcheck ./...); done

release: ## binaries, archives, bills of materials and checksums of this commit in dist/: the same bytes wherever they are built
	@$(GO) run ./internal/cmd/release

sums: ## write the checksums of the Java servers anew, after a change of their pom.xml
	@set -e; for a in internal/services/kafka internal/services/apicurio bench/peers; do dir=$$(mktemp -d); \
		mvn --batch-mode --quiet -f $$a/pom.xml \
			org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$$dir; \
		(cd $$dir && LC_ALL=C sha256sum *) > $$a/SHA256SUMS; rm -r $$dir; done
