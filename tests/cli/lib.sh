# What the scripts of this folder share: `. "$(dirname "$0")/lib.sh"` with the path of nestar as the script's argument.
# Prints "ok NAME" or "not ok NAME" with what was wrong; a script ends with `finish`, which prints a count, exit status 1 if anything failed.
[ $# -eq 1 ] || { echo "usage: $0 PATH-OF-NESTAR" >&2; exit 2; }
case $1 in /*) N=$1 ;; *) N=$PWD/$1 ;; esac
[ -x "$N" ] || { echo "$0: $N is not there" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/nestar-cli.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cd "$work" || exit 2
export NS_CPU=ref NS_THREADS=1 LC_ALL=C
passed=0 failed=0

ok() { passed=$((passed + 1)); echo "ok $1"; }
bad() { failed=$((failed + 1)); echo "not ok $1: $2"; sed 's/^/    /' err 2>/dev/null | head -5; }

# want NAME STATUS PATTERN COMMAND..: exit status, and a pattern in what it printed (out and err)
want() {
    name=$1 status=$2 pattern=$3
    shift 3
    "$@" >out 2>err </dev/null
    got=$?
    if [ $got -ne "$status" ]; then bad "$name" "exit status $got, expected $status"
    elif [ -n "$pattern" ] && ! cat out err | grep -q -e "$pattern"; then bad "$name" "no \"$pattern\" in the output"
    else ok "$name"; fi
}

# said NAME PATTERN FILE: a pattern in what an earlier command left
said() { if grep -q -e "$2" "$3"; then ok "$1"; else bad "$1" "no \"$2\" in $3"; fi; }
# same NAME FILE FILE
same() { if cmp -s "$2" "$3"; then ok "$1"; else bad "$1" "$2 and $3 differ"; fi; }
differ() { if cmp -s "$2" "$3"; then bad "$1" "$2 and $3 are equal"; else ok "$1"; fi; }
# check NAME TEST-EXPRESSION..
check() { name=$1; shift; if [ "$@" ]; then ok "$name"; else bad "$name" "not: $*"; fi; }
absent() { if [ -e "$2" ] || [ -e "$2.partial" ]; then bad "$1" "$2 or $2.partial is there"; else ok "$1"; fi; }
finish() {
    echo "$passed passed, $failed failed"
    [ $failed -eq 0 ]
}
