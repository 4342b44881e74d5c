#!/bin/sh
# Opens the page of `nestar report` in headless Chromium: check_report.sh DIR. Fails where the browser logs an error, where a figure is
# missing, or where the page asks for anything but itself; skipped (status 77) without Chromium. Screenshots for a desk and a telephone
# are left as DIR-desk.png and DIR-phone.png with -s.
shots=
[ "$1" = -s ] && shots=1 && shift
[ -f "$1/index.html" ] || { echo "usage: $0 [-s] DIR (with index.html)" >&2; exit 2; }
dir=$(cd "$1" && pwd)
for c in chromium chromium-browser google-chrome; do
    command -v $c >/dev/null && browser=$c && break
done
[ -n "$browser" ] || { echo "skipped: no chromium"; exit 77; }
home=$(mktemp -d) || exit 2
trap 'rm -rf "$home"' EXIT
open() { timeout 120 "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$home" "$@"; }

open --enable-logging=stderr --v=0 --dump-dom "file://$dir/index.html" >"$home/dom" 2>"$home/log" || { echo "the browser failed"; cat "$home/log"; exit 1; }
failed=0
if grep 'CONSOLE' "$home/log"; then echo "$dir: the browser complains"; failed=1; fi
figures=$(grep -c '<figure' "$dir/index.html")
drawn=$(grep -c '<svg' "$home/dom")
[ "$figures" -eq "$drawn" ] || { echo "$dir: $figures figures, $drawn drawn"; failed=1; }
grep -q '</dl>' "$home/dom" || { echo "$dir: the page is cut short"; failed=1; }
if grep -v xmlns "$dir/index.html" | grep -n 'https\{0,1\}:\|<script\|<link[^>]*stylesheet\|@import'; then echo "$dir: the page asks for something else"; failed=1; fi
if [ -n "$shots" ]; then
    open --window-size=1000,12000 --screenshot="$dir-desk.png" "file://$dir/index.html" 2>/dev/null
    open --window-size=390,12000 --screenshot="$dir-phone.png" "file://$dir/index.html" 2>/dev/null
fi
[ $failed -eq 0 ] && echo "$dir: $figures figures, no complaint"
exit $failed
