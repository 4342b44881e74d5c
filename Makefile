# The usual things in one word each; CMakeLists.txt is what builds.
#   make           build/nestar and the libraries          make install DESTDIR= PREFIX=/usr/local
#   make demo      a small checkpoint, run at its sizes     make asan       the tests under ASan and UBSan
#   make test      all tests                                make deps       what is missing, from the distribution
# Variables: BUILD (folder), JOBS, NS_WERROR=ON, NS_TEST_DATA=FOLDER, TESTS (which groups, as a ctest -L pattern), CMAKE_FLAGS
BUILD ?= build
JOBS ?= 2
PREFIX ?= /usr/local
NS_WERROR ?= OFF
NS_TEST_DATA ?=
TESTS ?= .
CMAKE_FLAGS ?=

CCACHE := $(shell command -v ccache 2>/dev/null)
CONFIGURE = cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX='$(PREFIX)' -DNS_WERROR=$(NS_WERROR) \
	-DNS_TEST_DATA='$(abspath $(NS_TEST_DATA))' $(if $(CCACHE),-DCMAKE_C_COMPILER_LAUNCHER=$(CCACHE)) $(CMAKE_FLAGS) \
	--log-level=WARNING >/dev/null

.PHONY: all deps configure demo test asan install clean

all: configure
	@cmake --build $(BUILD) -j $(JOBS) --target product

deps:
	@sh tools/deps.sh

configure: deps
	@$(CONFIGURE)

demo: all
	@sh examples/demo/demo.sh $(BUILD)/nestar $(BUILD)/demo

# The count of cases is the last line; the status is that of the tests.
test: configure
	@cmake --build $(BUILD) -j $(JOBS)
	@cd $(BUILD) && rm -f Testing/Temporary/LastTest.log; ctest -L '$(TESTS)' -j $(JOBS) --output-on-failure
	@sh tools/test_summary.sh $(BUILD)/Testing/Temporary/LastTest.log

asan:
	@$(MAKE) --no-print-directory test BUILD=build-asan CMAKE_FLAGS='-DNS_SANITIZE=ON $(CMAKE_FLAGS)'

install: all
	DESTDIR='$(DESTDIR)' cmake --install $(BUILD) --prefix '$(PREFIX)'

clean:
	rm -rf $(BUILD) build-asan build-fuzz build-ci build-ci-asan
