#!/bin/sh
# Counts the cases in ctest logs (Testing/Temporary/LastTest.log) and prints "N passed, N failed, N skipped"; exit status 1 if any failed.
# A case is a TAP line of a test program ("ok ..", "not ok ..", "# SKIP"); a program that prints none counts as one, and one that died
# on the way as one failure more. Arguments: PASSED=N to add cases that ran elsewhere, FAILED=N likewise, logs.
passed=0 failed=0
for a; do
    case $a in
    PASSED=*) passed=$((passed + ${a#PASSED=})); shift ;;
    FAILED=*) failed=$((failed + ${a#FAILED=})); shift ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || { echo "usage: test_summary.sh [PASSED=N] [FAILED=N] LOG.." >&2; exit 2; }
awk -v passed="$passed" -v failed="$failed" '
/^[0-9]+\/[0-9]+ Testing: / { ok = bad = skip = 0 }
/^ok .*# SKIP/ || /^not ok .*# SKIP/ { skip++; next }
/^ok / { ok++ }
/^not ok / { bad++ }
/^Test Passed\.$/ { passed += ok + bad + skip ? ok : 1; failed += bad; skipped += skip; programs++ }
/^Test Failed\.$/ { passed += ok; failed += bad ? bad : 1; skipped += skip; programs++ }
/^Test Skipped\.$/ || /^Test Not Run\.$/ { skipped++; programs++ }
END {
    if (!programs) { print "no tests ran"; failed++ }
    printf "%d passed, %d failed", passed, failed
    if (skipped) printf ", %d skipped", skipped
    printf "\n"
    exit failed > 0
}' "$@"
