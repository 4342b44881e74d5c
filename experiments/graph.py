"""A small dependency graph of steps, each a folder under the work folder.

A step's folder appears under its own name only when the step is complete (rename), so a step that is there is done and is
skipped; while it runs, or after an interruption, it is NAME.partial, where commands that can resume find their state.
done.json in it holds the commands, the seconds they took, and a key made of the step's parameters and those of the steps
it needs: a folder of another key is refused, not reused.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time


class Step:
    """run(here, need): here runs commands in the step's folder, need[NAME] is the folder of a step it depends on.
    tokens: what is trained, for the estimate of time; param: whatever changes the result beside the steps needed."""

    def __init__(self, name, what, run, needs=(), tokens=0.0, param=None):
        self.name, self.what, self.run, self.needs, self.tokens, self.param = name, what, run, tuple(needs), tokens, param


class Here:
    def __init__(self, folder, dry):
        self.folder, self.dry, self.commands = folder, dry, []

    def path(self, name):
        return os.path.join(self.folder, name)

    def sh(self, argv, makes=None, stdout=None):
        """Runs a command. `makes` is what it makes in the step's folder, which appears when it is complete; `stdout` the file there
        that receives its output (else the log does). With both there from before an interruption, nothing is run."""
        argv = [str(a) for a in argv]
        self.commands.append(shlex.join(argv))
        if self.dry:
            print("    " + shlex.join(argv) + (f" > {self.path(stdout)}" if stdout else ""))
            return
        there = [os.path.exists(self.path(p)) for p in (makes, stdout) if p]
        if there and all(there):
            return
        if makes and os.path.isdir(self.path(makes)):  # made, but interrupted before its report
            shutil.rmtree(self.path(makes))
        self.call(argv, stdout)

    def call(self, argv, stdout):
        with open(self.path("log.txt"), "a", encoding="utf-8") as log:
            print("$ " + shlex.join(argv), file=log, flush=True)
            out = open(self.path(stdout) + ".partial", "w", encoding="utf-8") if stdout else log
            code = subprocess.call(argv, stdout=out, stderr=log)
            if stdout:
                out.close()
        if code != 0:
            with open(self.path("log.txt"), encoding="utf-8", errors="replace") as log:
                sys.stderr.write("".join(log.readlines()[-5:]))
            raise SystemExit(f"{self.folder}: exit status {code} of: {shlex.join(argv)}")
        if stdout:
            os.rename(self.path(stdout) + ".partial", self.path(stdout))


class Graph:
    def __init__(self, work):
        self.work, self.steps = work, {}

    def add(self, *args, **kwargs):
        s = Step(*args, **kwargs)
        assert s.name not in self.steps and all(n in self.steps for n in s.needs), s.name
        self.steps[s.name] = s
        return s.name

    def key(self, name):
        s = self.steps[name]
        text = json.dumps([s.name, s.param, [self.key(n) for n in s.needs]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def folder(self, name):
        return os.path.join(self.work, name)

    def done(self, name):
        path = os.path.join(self.folder(name), "done.json")
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as f:
            done = json.load(f)
        if done["key"] != self.key(name):
            raise SystemExit(f"{self.folder(name)} was made with other parameters: remove it, or take another --work")
        return done

    def wanted(self, names):
        """The steps that `names` need, in the order in which they were added."""
        seen = set()

        def visit(n):
            if n not in seen:
                seen.add(n)
                for m in self.steps[n].needs:
                    visit(m)

        for n in names:
            visit(n)
        return [n for n in self.steps if n in seen]

    def run(self, names, dry=False):
        for name in self.wanted(names):
            if not dry and self.done(name):
                continue
            s, final = self.steps[name], self.folder(name)
            print(f"{name}: {s.what}", flush=True)
            here = Here(final if dry else final + ".partial", dry)
            if not dry:
                os.makedirs(here.folder, exist_ok=True)
            began = time.time()
            s.run(here, {n: self.folder(n) for n in s.needs})
            if dry:
                continue
            done = {"key": self.key(name), "seconds": round(time.time() - began, 1), "tokens": s.tokens, "commands": here.commands,
                    "load_average": os.getloadavg()[1]}  # fmt: skip
            with open(here.path("done.json"), "w", encoding="utf-8") as f:
                json.dump(done, f, indent=1)
            os.rename(here.folder, final)
