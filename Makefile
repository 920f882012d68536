# pgmc: many SQL sessions share one managed connection, one at a time.
#
#   make, make install, make installcheck    with the pg_config in the PATH
#   make PG_CONFIG=/path/to/pg_config ...    for another PostgreSQL
#   make WERROR=1                            more warnings, all of them errors
#   make check-unit                          the tests that need no server
#
# installcheck uses the server that PGHOST, PGPORT, PGUSER and so on name, and databases of
# its own there (contrib_regression, isolation_regression).

MODULE_big = pgmc
PGFILEDESC = "pgmc - managed connections shared by many sessions"
OBJS = \
	src/channel.o \
	src/command.o \
	src/counters.o \
	src/cycle.o \
	src/deadlock.o \
	src/hooks.o \
	src/launch.o \
	src/log.o \
	src/netcancel.o \
	src/options.o \
	src/params.o \
	src/pgmc.o \
	src/registry.o \
	src/remote.o \
	src/result.o \
	src/rows.o \
	src/server.o \
	src/session.o \
	src/sqlfuncs.o \
	src/static_area.o \
	src/stats.o \
	src/talk.o \
	src/transfer.o \
	src/wire.o \
	src/worker.o

EXTENSION = pgmc
DATA = src/pgmc--1.0.sql
DOCS = doc/pgmc.md

# What each server-free test t/unit/NAME_test.c is compiled together with
UNIT_wire = src/wire.c
UNIT_command = src/command.c
UNIT_cycle = src/cycle.c

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
	$(CC) $(filter-out -DFRONTEND,$(CPPFLAGS)) -DFRONTEND -DPGMC_UNIT -I$(here)src $(CFLAGS) \
		$(filter %.c,$^) $(LDFLAGS) -L$(pkglibdir) -lpgcommon -lpgport -lm -o $@
