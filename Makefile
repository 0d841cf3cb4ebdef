# make            build ./rootnfsd
# make check      gofmt, vet, staticcheck, the packages' tests under the race detector, short fuzzing
# make test       install what the black-box tests need (Debian, root), then run them: real clients, QEMU boots
# make test-long  the same, and the long ones
# make demo       boot two diskless Debian nodes in QEMU, promote, reboot one
# make cross      static binaries for all platforms, in dist/
# make bench      all that bench/RESULTS.md tells, measured on this machine (more than an hour, root)
# make gobench    Go benchmarks, for benchstat
# make pgo        the profile that the compiler optimises by, from a boot storm and single calls

GO          ?= go
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# A count, for a span of time sometimes ends in "context deadline exceeded" (go.dev/issue/75804).
FUZZTIME    ?= 10000x
# Everything but the black-box tests, which run the real program.
PACKAGES     = $(shell $(GO) list ./... | grep -v /integration)

export CGO_ENABLED ?= 0

.PHONY: all build check fmt vet staticcheck race fuzz test test-long demo cross bench gobench pgo setup clean

all: build

build:
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o rootnfsd ./cmd/rootnfsd

check: fmt vet staticcheck race fuzz

fmt:
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "gofmt is needed: $$files"; exit 1; }

vet:
	$(GO) vet ./...
	GOARCH=arm GOARM=6 $(GO) vet ./...

staticcheck:
	$(GO) run $(STATICCHECK) ./...

# The race detector needs cgo, and that a compiler. It stands in the way of counting allocations,
# and of changing what all threads may.
race:
	@command -v gcc >/dev/null || sh integration/setup.sh --check
	CGO_ENABLED=1 $(GO) test -vet=off -race $(PACKAGES)
	$(GO) test -vet=off -run 'Allocate|LayDown|Namespace|Threads' ./nfs ./netboot/tftp ./capability ./fs/hostdir

# One target for each processor: most of the time goes into building them. One that fuzzes nothing has failed.
fuzz:
	@git grep -o '^func Fuzz[A-Za-z0-9]*' -- '*_test.go' | sed 's,/[^/]*:func , ,' | xargs -n 2 -P "$$(nproc)" sh -c ' \
		out=$$($(GO) test -vet=off -run "^$$" -fuzz "^$$1\$$" -fuzztime $(FUZZTIME) -parallel 1 "./$$0" 2>&1) && \
		! echo "$$out" | grep -e "no fuzz tests" -e "no test files" && echo "$$0 $$1" || { echo "$$0 $$1: $$out"; exit 255; }'

setup:
	sh integration/setup.sh

# Go takes a result for good as long as the test's own packages are the same (-count=1 tells it not to),
# and these tests run a program that they do not import.
test: setup build
	ROOTNFSD_TEST_ALL=1 $(GO) test -count=1 -vet=off -timeout 40m ./integration/...

test-long: build
	sh integration/setup.sh --long
	ROOTNFSD_TEST_ALL=1 ROOTNFSD_TEST_LONG=1 $(GO) test -count=1 -timeout 90m ./...

demo: setup build
	$(GO) run ./integration/demo

cross:
	@mkdir -p dist
	@for platform in amd64: arm64: arm:7 arm:6; do \
		arch=$${platform%:*} arm=$${platform#*:}; \
		echo "dist/rootnfsd-linux-$$arch$${arm:+v$$arm}"; \
		GOOS=linux GOARCH=$$arch GOARM=$$arm $(GO) build -trimpath -ldflags "$(LDFLAGS)" \
			-o dist/rootnfsd-linux-$$arch$${arm:+v$$arm} ./cmd/rootnfsd || exit 1; \
	done

# The parts can be made anew one by one: each leaves its figures in bench/results.
bench: setup build
	$(GO) run ./integration/bench

# COUNT=10 is what benchstat likes.
COUNT ?= 1
gobench:
	$(GO) test -count $(COUNT) -run '^$$' -bench . -benchmem $(PACKAGES)

# STORE is a store with a sealed version of a Debian root. Builds look for default.pgo by themselves.
PGO_ADDR := 127.0.0.1:12049
pgo: build
	@test -n "$(STORE)" || { echo "make pgo STORE=directory"; exit 1; }
	./rootnfsd serve --export "$(STORE)" --listen $(PGO_ADDR) --portmap off --cpu-profile default.pgo >/dev/null & server=$$!; \
	sleep 2; \
	./rootnfsd bench storm --target $(PGO_ADDR) --nodes 64 --runs 3 && \
	./rootnfsd bench load --target $(PGO_ADDR) --runs 1 --duration 1s --connections 4,64 --in-flight 1,16; \
	status=$$?; kill -INT $$server; wait $$server; test $$status = 0
	mv default.pgo cmd/rootnfsd/default.pgo

clean:
	rm -rf rootnfsd dist
