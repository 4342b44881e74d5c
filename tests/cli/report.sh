#!/bin/sh
# Tests of `nestar report`: report.sh PATH-OF-NESTAR.
. "$(dirname "$0")/lib.sh"

want "report --help" 0 "  nestar report " "$N" report --help
want "report: unknown option" 2 "nestar report: " "$N" report --frobnicate
want "report: no argument" 2 "is missing" "$N" report
want "report: no folder" 2 "is missing" "$N" report x.db
want "report: bad deadline" 2 "no time" "$N" report x.db -o page --deadline soon
want "report: deadline of zero" 2 "not above zero" "$N" report x.db -o page --deadline 0s
want "report: missing file" 1 "x.db" "$N" report x.db -o page
echo 'this is text and no database, whatever its name says' >text.db
want "report: no database" 1 "text.db: file is not a database" "$N" report text.db -o page
absent "report: nothing left of refused ones" page

# Two runs of one checkpoint: full alone at two budgets, small alone, and small that thinks for full; names that a page must escape.
if ! command -v python3 >/dev/null || ! python3 -c 'import sqlite3' 2>/dev/null; then
    echo "skipped: no python3 to make results with"
    finish
    exit
fi
python3 - <<'END'
import sqlite3
db = sqlite3.connect("results.db")
db.executescript("""
PRAGMA user_version = 1;
CREATE TABLE run (id INTEGER PRIMARY KEY, created TEXT, version TEXT, checkpoint TEXT, fingerprint TEXT, task TEXT, task_hash TEXT, options TEXT,
  machine TEXT);
CREATE TABLE problem (run INTEGER, id INTEGER, key TEXT, kind TEXT, level INTEGER, answer TEXT, PRIMARY KEY (run, id));
CREATE TABLE plan (id INTEGER PRIMARY KEY, run INTEGER, think TEXT, answer TEXT, budget INTEGER, handover TEXT, think_active INTEGER,
  answer_active INTEGER, think_bytes INTEGER, answer_bytes INTEGER, prompt_tokens INTEGER, tokens INTEGER, seconds REAL);
CREATE TABLE sample (plan INTEGER, problem INTEGER, sample INTEGER, correct INTEGER, extracted TEXT, output TEXT, prompt_tokens INTEGER,
  thinking_tokens INTEGER, answer_tokens INTEGER, closed INTEGER, ended INTEGER, seconds REAL, PRIMARY KEY (plan, problem, sample));
CREATE TABLE latency (run INTEGER, size TEXT, prefill_tokens_per_s REAL, decode_tokens_per_s REAL, switch_s REAL, PRIMARY KEY (run, size));
""")
for run in 1, 2:
    db.execute("INSERT INTO run VALUES (?, '2026-11-30', '0', 'demo', 'f', '<script>t|b</script>', 'h', ?, '{}')", (run, '{"sampling": {"seed": %d}}' % run))
    for i in range(50):
        db.execute("INSERT INTO problem VALUES (?, ?, NULL, ?, ?, '1')", (run, i, ["su<b>m", "chain"][i % 2], i % 3 + 1))
    db.executemany("INSERT INTO latency VALUES (%d, ?, ?, ?, 0.001)" % run, [("full", 1000, 100), ("sm'all", 2000, 200)])
    plans = [("full", "full", 0, "none", 5), ("full", "full", None, "none", 45), ("sm'all", "sm'all", None, "none", 30), ("sm'all", "full", None, "cache", 40)]
    for think, answer, budget, handover, right in plans:
        size = {"full": 1000, "sm'all": 500}
        plan = db.execute("INSERT INTO plan VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0)", (run, think, answer, budget, handover, size[think],
                          size[answer], 2 * size[think], 2 * size[answer])).lastrowid
        db.executemany("INSERT INTO sample VALUES (?, ?, 0, ?, NULL, NULL, 10, ?, 5, 0, 1, NULL)",
                       [(plan, i, i < right, 0 if budget == 0 else 20) for i in range(50)])
db.commit()
db.close()
END
echo '[{"size": "sm'"'"'all", "tokens": 9, "kl": 0.5, "worst_kl": 1, "agree": 0.75, "perplexity_a": 2, "perplexity_b": 3, "layers": [0.1, 0.25]}]' >drift.json
cp results.db before.db
want "report" 0 "within 100 ms: full, thinking off, 10.0 %" "$N" report results.db --drift drift.json --deadline 100ms -o page
for f in index.html MODEL_CARD.md accuracy-latency.svg accuracy-latency.png accuracy-tokens.svg accuracy-bytes.png claims.svg drift-layers.svg; do
    check "report, $f" -s page/$f
done
same "report, the results are as they were" results.db before.db
said "report, latency by the formula" "<td>260 ms</td>" page/index.html # 10 / 1000 + 20 / 100 + 5 / 100 s
said "report, accuracy" "90.0 %" page/index.html
said "report, lost by the small size" "loses 30 that the larger size solves and wins 0" page/MODEL_CARD.md
said "report, drift in the card" "0.50000 nats a token" page/MODEL_CARD.md
said "report, names escaped" "&lt;script&gt;t|b" page/index.html
check "report, no name unescaped" "$(grep -c '<script\|su<b>m' page/index.html)" -eq 0
check "report, no name unescaped in the card" "$(grep -c '<script\|su<b>m' page/MODEL_CARD.md)" -eq 0
check "report, nothing from elsewhere" "$(grep -v 'xmlns' page/index.html | grep -c 'http\|src=\|@import\|url(http')" -eq 0
check "report, ids once each" "$(grep -o "id=['\"][^'\"]*['\"]" page/index.html | sort | uniq -d | wc -l)" -eq 0
want "report, again in the same folder" 1 "exists already" "$N" report results.db -o page
"$N" report results.db --drift drift.json --deadline 100ms -o again >/dev/null 2>&1
same "report, the same page twice" page/index.html again/index.html
want "report, a deadline nothing meets" 0 "no plan is that quick" "$N" report results.db --deadline 1ms -o quick
want "report, a drift that is none" 1 "text.db" "$N" report results.db --drift text.db -o bad
want "report, a checkpoint that is not there" 1 "nowhere" "$N" report results.db --checkpoint nowhere -o bad
want "report, no gnuplot" 1 "gnuplot-nox" env PATH=/nowhere "$N" report results.db -o bad
absent "report, nothing left" bad
cut() { python3 -c 'import sqlite3, sys; db = sqlite3.connect("results.db"); db.execute(sys.argv[1]); db.commit()' "$1"; }
cut "DELETE FROM sample WHERE problem > 30 AND plan IN (2, 6)"
want "report, interrupted" 0 "" "$N" report results.db -o part
said "report, interrupted: said so" "incomplete" part/index.html
cut "PRAGMA user_version = 7"
want "report, another schema" 1 "results.db: results of version 7; this nestar reads version 1" "$N" report results.db -o bad

finish
