# make run and make test set everything up in .venv, from nothing but Python 3.11 or later (venv, headers), gcc and make.

PYTHON ?= $(firstword $(shell command -v python3.11 python3 2>/dev/null))
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --quiet --disable-pip-version-check
SOURCES := $(wildcard sched/*.[ch] net/*.[ch] net/*/*.[ch] blk/*.[ch] vfs/*.[ch]) libos/_build.py setup.py
OBJECTS := $(wildcard sched/objects/*.[ch])

FUZZERS := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/*.c))
FUZZ_SECONDS ?= 60
BENCH ?= echo
# What calls into C itself; tests of whole programs start others, that the sanitizers would only slow down.
SANITIZED := tests/stack tests/net tests/sched tests/loop tests/test_machine.py tests/wire/test_differential.py
SANITIZE := -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

.NOTPARALLEL:
.PHONY: run test soak lint asan fuzz bench doctor conformance libos-stack clean help
.DEFAULT_GOAL := help

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run: $(VENV)/examples $(VENV)/native ## boot examples/hello_http.py; Ctrl-C ends it
	@$(call foreground,$(BIN)/libos run --net user --publish 8080:80 examples/hello_http.py)

test: $(VENV)/test $(VENV)/native ## all tests (PYTEST_ARGS: more for pytest)
	$(BIN)/pytest $(PYTEST_ARGS)

soak: $(VENV)/test $(VENV)/native ## the long tests (root): gigabytes, bad wires, wrk
	$(BIN)/pytest -m soak $(PYTEST_ARGS)

conformance: ## docs/tcp-conformance.md, from the docstrings of the tests
	$(PYTHON) tests/conformance/generate.py

lint: $(VENV)/dev $(VENV)/native ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

asan: $(VENV)/test ## the tests with the C half under AddressSanitizer and UBSan
	rm -rf build/asan && mkdir -p build/asan
	cp -a libos sched net blk vfs bench tests examples setup.py pyproject.toml README.md LICENSE build/asan/
	rm -f build/asan/libos/_native*.so build/asan/libos/_loop*.so
	cd build/asan && LIBOS_CFLAGS="$(SANITIZE)" $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace
	cd build/asan && \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 \
	PYTHONPATH=$(CURDIR)/build/asan PYTHONSAFEPATH=1 PYTHONMALLOC=malloc \
	$(CURDIR)/$(BIN)/pytest --capture=sys -m "not slow and not soak" $(PYTEST_ARGS) $(SANITIZED)

fuzz: $(FUZZERS) ## libFuzzer on what comes from a wire, FUZZ_SECONDS for each target (needs clang)
	@set -e; for target in $(FUZZERS); do \
		name=$${target##*/fuzz_}; seeds=build/fuzz/seeds/$$name; corpus=build/fuzz/corpus/$$name; \
		mkdir -p $$seeds $$corpus; \
		if [ -f tests/fuzz/seeds_$$name.py ]; then $(PYTHON) tests/fuzz/seeds_$$name.py $$seeds; fi; \
		echo "$$target for $(FUZZ_SECONDS) s"; \
		$$target -max_total_time=$(FUZZ_SECONDS) -timeout=20 -max_len=2048 -len_control=10 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/ $$corpus $$seeds; \
	done

build/fuzz/%: tests/fuzz/%.c $(wildcard tests/fuzz/*.h) $(SOURCES)
	@mkdir -p $(@D)
	clang -std=gnu11 -g -O1 -fno-strict-aliasing -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		-I. -o $@ $< $(filter %.c,$(SOURCES)) -ldl

bench: $(VENV)/test $(VENV)/native ## the echo benchmark (root: all of it); BENCH=loop, http, start ...: another one
	$(BIN)/libos bench $(BENCH) $(BENCH_ARGS)

# The stack alone, for programs that drive it (docs/driving.md): what its two headers declare is visible, nothing else.
STACK := build/libos-stack
STACK_OBJECTS := $(patsubst %.c,$(STACK)/%.o,$(filter %.c,$(SOURCES)))

libos-stack: $(STACK)/libos-stack.so $(STACK)/libos-stack.a $(STACK)/libos-stack.h ## the stack as a C library, in build/libos-stack

$(STACK)/%.o: %.c $(filter %.h,$(SOURCES))
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -fPIC -fno-strict-aliasing -Wall -Wextra -Wno-unused-parameter -I. -c -o $@ $<

$(STACK)/libos-stack.so: $(STACK_OBJECTS) $(STACK)/libos-stack.h
	{ echo '{ global:'; grep -oE '\b(drive|stack|sock|link|inet)_[a-z0-9_]+\(' $(STACK)/libos-stack.h | tr '(' ';'; \
	  echo 'local: *; };'; } > $(STACK)/exports
	$(CC) -shared -Wl,--version-script=$(STACK)/exports -o $@ $(STACK_OBJECTS) -ldl

$(STACK)/libos-stack.a: $(STACK_OBJECTS)
	rm -f $@
	$(AR) qcs $@ $^ # appended, not replaced: folders have files of the same name

$(STACK)/libos-stack.h: net/api.h net/drive.h Makefile
	@mkdir -p $(@D)
	{ echo '#ifndef LIBOS_STACK_LIBRARY_H'; echo '#define LIBOS_STACK_LIBRARY_H'; \
	  echo '#include <stddef.h>'; echo '#include <stdint.h>'; echo '#include <sys/socket.h>'; \
	  echo '#ifdef __cplusplus'; echo 'extern "C" {'; echo '#endif'; cat net/api.h net/drive.h; \
	  echo '#ifdef __cplusplus'; echo '}'; echo '#endif'; echo '#endif'; } > $@

doctor: $(VENV)/native ## what this host offers
	@$(BIN)/libos doctor

clean: ## remove what was built
	rm -rf $(VENV) build dist *.egg-info libos/_native*.so libos/_native.c libos/_loop*.so
	find . -name __pycache__ -prune -exec rm -rf {} +

# --- the environment: a stamp per step, so that the second time costs nothing ---------------------------------------

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "make: no python3.11 or python3 here" >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: libos needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The C half, and libos itself, editable. Build tools come first, so that a change in C costs seconds and no download.
$(VENV)/tools: $(VENV)/made pyproject.toml
	$(PIP) install "setuptools>=77" "cffi>=2.0"
	@touch $@

$(VENV)/native: $(VENV)/tools $(SOURCES) $(OBJECTS)
	$(PIP) install --no-build-isolation --editable .
	@touch $@

# With what the programs, the tests or the checks need besides. It builds the C half too.
$(VENV)/examples $(VENV)/test $(VENV)/dev: $(VENV)/%: $(VENV)/tools
	$(PIP) install --no-build-isolation --editable '.[$*]'
	@touch $@ $(VENV)/native

# In a terminal the program gets the foreground for itself: Ctrl-C reaches it and not make, whose exit status is then
# the program's.
foreground = if [ -t 0 ] && command -v bash >/dev/null; then bash -c 'set -m; $(1); exit $$?'; else $(1); fi
