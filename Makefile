# pgmc: many SQL sessions share one managed connection, one at a time.
#
#   make, make install, make installcheck    with the pg_config in the PATH
#   make PG_CONFIG=/path/to/pg_config ...    for another PostgreSQL
#   make WERROR=1                            more warnings, all of them errors
#   make check-unit                          the tests that need no server
#   make dist                                pgmc-1.0.tar.gz, and pgmc-1.0.0.zip for PGXN
#
# installcheck uses the server that PGHOST, PGPORT, PGUSER and so on name, and databases of
# its own there (contrib_regression, isolation_regression).

MODULE_big = pgmc
PGFILEDESC = "pgmc - managed connections shared by many sessions"
OBJS = \
	src/acquire.o \
	src/await.o \
	src/build.o \
	src/channel.o \
	src/command.o \
	src/counters.o \
	src/cycle.o \
	src/deadlock.o \
	src/fate.o \
	src/hold.o \
	src/hooks.o \
	src/inbox.o \
	src/launch.o \
	src/lease.o \
	src/log.o \
	src/many.o \
	src/netcancel.o \
	src/option_table.o \
	src/options.o \
	src/params.o \
	src/pgmc.o \
	src/prepared.o \
	src/registry.o \
	src/registry_session.o \
	src/registry_state.o \
	src/registry_view.o \
	src/registry_worker.o \
	src/remote.o \
	src/remote_cancel.o \
	src/remote_error.o \
	src/remote_open.o \
	src/remote_result.o \
	src/remote_send.o \
	src/remote_sets.o \
	src/remote_task.o \
	src/result.o \
	src/rows.o \
	src/server.o \
	src/session.o \
	src/spin.o \
	src/sqlfuncs.o \
	src/static_area.o \
	src/stats.o \
	src/taken.o \
	src/talk.o \
	src/transfer.o \
	src/wire.o \
	src/worker.o \
	src/worker_request.o \
	src/worker_serve.o \
	src/worker_tick.o \
	src/worker_wait.o

EXTENSION = pgmc
DATA = src/pgmc--1.0.sql
DOCS = doc/pgmc.md

# What each server-free test t/unit/NAME_test.c is compiled together with
UNIT_wire = src/wire.c
UNIT_command = src/command.c
UNIT_cycle = src/cycle.c
UNIT_option_table = src/option_table.c
UNIT_LIBS_option_table = $(libpq)

# These are code of the server's, as is their test, which has what they call of it
UNIT_lease = src/lease.c
UNIT_inbox = src/inbox.c src/wire.c

# Where this file is: another directory than the current one in a VPATH build
here := $(dir $(firstword $(MAKEFILE_LIST)))
ifneq ($(here),./)
$(shell mkdir -p src t/unit)
endif
test_names = $(sort $(patsubst $(here)$(1)/%.$(2),%,$(wildcard $(here)$(1)/*.$(2))))

# Expanded at once: PGXS asks with ifdef, which takes an unexpanded reference for a value
REGRESS := $(call test_names,sql,sql)
ISOLATION := $(call test_names,specs,spec)
ifneq (,$(wildcard $(here)t/*.pl))
TAP_TESTS = 1
endif

PG_CPPFLAGS = -I$(libpq_srcdir)
SHLIB_LINK_INTERNAL = $(libpq)

# The last group is for clang where PostgreSQL was configured for gcc. CC comes with PGXS,
# so this must not be expanded here.
ifdef WERROR
PG_CFLAGS = -Wall -Wextra -Werror \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Wno-clobbered \
	$(if $(findstring clang,$(shell $(CC) --version)), \
		-Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes)
endif

unit_names := $(patsubst %_test,%,$(filter %_test,$(call test_names,t/unit,c)))
unit_programs := $(unit_names:%=t/unit/%_test)
EXTRA_CLEAN = $(unit_programs)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)

# Bitcode for the JIT compiler is left out where the tools PostgreSQL was built with are missing
pgxs_setting = $(shell sed -n 's/^$(1)[ \t]*=[ \t]*//p' '$(dir $(PGXS))../Makefile.global')
ifeq (,$(shell command -v '$(call pgxs_setting,CLANG)' && \
	command -v '$(call pgxs_setting,LLVM_BINPATH)/llvm-lto'))
override with_llvm = no
endif

include $(PGXS)

headers := $(wildcard $(here)src/*.h)

$(OBJS) $(OBJS:.o=.bc): $(headers)

# It tells this library from others: see there
sources := $(sort $(wildcard $(here)src/*.[ch]))
src/build.o src/build.bc: $(sources)
src/build.o src/build.bc: override CPPFLAGS += -DPGMC_BUILD=$(firstword $(shell cat $(sources) | cksum))u

# What git has at HEAD, as PGXN wants it, too: a zip whose version has three parts
version = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(here)$(EXTENSION).control)
pgxn_version = $(shell sed -n 's/^   "version": *"\(.*\)",/\1/p' $(here)META.json)

.PHONY: dist
dist:
	@if top=$$(git -C '$(here)' rev-parse --show-cdup) && test -z "$$top"; then :; \
	else echo 'make dist: not the top of a git checkout: $(abspath $(here))' >&2; exit 1; fi
	@git -C '$(here)' diff --quiet HEAD -- || echo 'make dist: what is not committed is left out'
	git -C '$(here)' archive --prefix=$(EXTENSION)-$(version)/ \
		-o '$(CURDIR)/$(EXTENSION)-$(version).tar.gz' HEAD
	git -C '$(here)' archive --prefix=$(EXTENSION)-$(pgxn_version)/ \
		-o '$(CURDIR)/$(EXTENSION)-$(pgxn_version).zip' HEAD

# PGXS installs DOCS without its directory, but would uninstall it with that
.PHONY: uninstall-manual
uninstall: uninstall-manual
uninstall-manual:
	rm -f $(addprefix '$(DESTDIR)$(docdir)/$(docmoduledir)'/, $(notdir $(DOCS)))

.PHONY: check-unit
check-unit: $(unit_programs)
	@failed=0; \
	for program in $^; do echo "# $$program"; ./$$program || failed=1; done; \
	exit $$failed

.SECONDEXPANSION:
$(unit_programs): t/unit/%_test: t/unit/%_test.c $$(UNIT_$$*) $(headers) $(wildcard $(here)t/unit/*.h)
	$(CC) $(CPPFLAGS) -DPGMC_UNIT -I$(here)src $(CFLAGS) \
		$(filter %.c,$^) $(LDFLAGS) $(UNIT_LIBS_$*) -L$(pkglibdir) -lpgcommon -lpgport -lm -o $@
