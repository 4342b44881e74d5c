#!/bin/sh
# Checks for what the build needs; where something is missing on Debian or Ubuntu, says so and installs it. Silent when all is there.
missing=
need() { # need PACKAGE COMMAND..: is the command successful?
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
need gcc command -v cc
need cmake command -v cmake
need ninja-build command -v ninja
need libopenblas0-pthread sh -c 'test -e /usr/lib/*/libblas.so.3 || ldconfig -p | grep -q "libblas.so.3 "' # for training, at run time
need gnuplot-nox command -v gnuplot # for nestar plot and report
if command -v pkg-config >/dev/null 2>&1; then
    need libjansson-dev pkg-config --exists jansson
    need libpcre2-dev pkg-config --exists libpcre2-8
    need libutf8proc-dev pkg-config --exists libutf8proc
    need libsqlite3-dev pkg-config --exists sqlite3
    need libedit-dev pkg-config --exists libedit
    need libmicrohttpd-dev pkg-config --exists libmicrohttpd
    need libcmocka-dev pkg-config --exists cmocka
else
    missing="$missing pkg-config libjansson-dev libpcre2-dev libutf8proc-dev libsqlite3-dev libedit-dev libmicrohttpd-dev libcmocka-dev"
fi
[ -n "$missing" ] || exit 0

echo "missing (as Debian packages):$missing" >&2
if ! command -v apt-get >/dev/null 2>&1; then
    echo "install what corresponds to them here, then run make again" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then root=; else root=sudo; fi
echo "+ $root apt-get install -y --no-install-recommends libc6-dev$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$root apt-get install -y --no-install-recommends libc6-dev $missing >&2 ||
    { $root apt-get update >&2 && $root apt-get install -y --no-install-recommends libc6-dev $missing >&2; }
