#!/usr/bin/env python3
"""Checks that every #include "folder/file.h" under src/ is one that LAYERS allows. Prints each breach; exit status 1 if any."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
allowed = {}
for line in (root / "LAYERS").read_text().splitlines():
    words = line.split("#")[0].split()
    if words:
        unknown = [w for w in words[1:] if w != "-" and w not in allowed]
        if unknown:
            sys.exit(f"LAYERS: {words[0]} names {unknown}, which no row above it defines")
        allowed[words[0]] = set(words[1:]) | {words[0]}

bad = 0
for path in sorted((root / "src").rglob("*.[ch]")):
    folder = path.relative_to(root / "src").parts[0]
    for n, line in enumerate(path.read_text().splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not m or m.group(1) == "nestar.h":
            continue
        target = m.group(1).split("/")[0]
        if "/" not in m.group(1) or target not in allowed.get(folder, ()):
            print(f"{path.relative_to(root)}:{n}: {folder} may not include {m.group(1)}")
            bad += 1
sys.exit(1 if bad else 0)
