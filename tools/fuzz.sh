#!/bin/sh
# Fuzzes one parser by hand: tools/fuzz.sh TARGET SECONDS [LIBFUZZER-ARGUMENT..]
# Builds with clang, AddressSanitizer and UndefinedBehaviorSanitizer into build-fuzz/. New inputs go to build-fuzz/found/TARGET; a crash
# leaves its input in the current folder. Seeds come from tests/fuzz/corpus/TARGET. CLANG names another clang than `clang`.
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -lt 2 ] || [ ! -f "$root/tests/fuzz/fuzz_$1.c" ]; then
    echo "usage: tools/fuzz.sh TARGET SECONDS; targets:" "$(cd "$root/tests/fuzz" && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//' | tr '\n' ' ')" >&2
    exit 2
fi
target=$1 seconds=$2
shift 2
clang=${CLANG:-$(command -v clang || command -v clang-14)} || { echo "fuzz.sh: no clang" >&2; exit 1; }
build=$root/build-fuzz
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER="$clang" -DNS_FUZZ=ON -DNS_SANITIZE=ON >/dev/null
ninja -C "$build" "fuzz_$target"
mkdir -p "$build/found/$target"
exec "$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 "$@" "$build/found/$target" \
    "$root/tests/fuzz/corpus/$target"
