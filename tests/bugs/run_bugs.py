#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants the bugs of tests/bugs/*.json one by one and requires that each of them turns a test red.

Every list is an array of objects:
  file       path of the file, below include/ or examples/compare/
  search     text that occurs exactly once in it
  replace    what the bug puts there
  why        the mistake in words
  killed_by  tests of which at least one must turn red; as few and as small as possible:
               "tests/unit/cache/truncate_test.cpp"   one file of Catch2 tests, built alone (the usual form);
                                                      *fast_math_test.cpp is built with -ffast-math
               "tests/cuda/decode_small_test.cpp"     the same for kernels: built with the emulator of tests/support/simt
               "tests/compile_fail/NAME.fail.cpp"     one pair of compile-fail tests
               "test_cache", "test_property",         all files of a test program, each built alone;
               "test_numeric_fast_math"               quickest first, until one is red
  kills_at   optional; "compile": the bug fails a static_assert of the test, which then does not compile
  needs      optional; a flag of the processor (/proc/cpuinfo) without which no test runs that code: left out then, loudly
  sanitize   optional; true: the test is built with sanitizers, because no other build can see the bug; of kernels, one
             of "address", "thread" and "memory" (the last with clang++)

A bug is planted in a copy of the tree, never in the tree itself. First the unplanted copy must be green. A test that
crashes or exceeds its time limit is red. Exit status 0 means that every bug selected was planted and killed.

The tests are compiled directly, not through CMake: one file, a precompiled Catch2 and one link take a few seconds.
Recorded data outside the repository is not used.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FIELDS = {"file": str, "search": str, "replace": str, "why": str, "killed_by": list, "kills_at": str,
          "sanitize": (bool, str), "needs": str}
REQUIRED = ("file", "search", "replace", "why", "killed_by")
VARIANTS = {  # compiler options
    "plain": ["-O0"],  # most of the time goes into compiling
    "long": ["-O1"],
    "fast_math": ["-O3", "-march=native", "-ffast-math", "-ffp-contract=fast"],  # as in tests/CMakeLists.txt
    "sanitize": ["-O1", "-fno-sanitize-recover=all"],
}
# Emulated kernels; variants "simt", "simt_address", ...
SIMT = ["-O0", "-fno-strict-aliasing", "-Wno-unknown-pragmas", "-DKVCRUMB_SIMT_LIGHT"]
SIMT_SANITIZERS = {
    "simt": [],
    "simt_address": ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"],
    "simt_thread": ["-fsanitize=thread"],
    "simt_memory": ["-fsanitize=memory"],
}
EMULATED = re.compile(r"tests/(cuda|unit/simt)/")
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"
RUNS_LONG = re.compile(r"tests/property/|/(storage_float|admission_rule|damaged_file|attend_reference)_test\.cpp")
COMPARE_LIBRARIES = ["-lfmt", "-lz"]  # what examples/compare is linked to
UNLINKED = ("main", "evaluate", "calibrate", "tradeoff", "risk_measured")  # parts of examples/compare that no test named in a list calls


class list_error(Exception):
    """An entry that cannot be planted as it is."""


class bug:
    """One entry of a list."""

    def __init__(self, name, entry):
        self.name = name
        self.entry = entry
        self.file = entry.get("file", "?")
        self.why = entry.get("why", "?")
        self.units = []  # (test file, variant)

    def planted(self, root):
        """The text of the file with the bug in it."""
        e = self.entry
        for key, value in e.items():
            if key not in FIELDS:
                raise list_error(f"unknown field {key!r}")
            if not isinstance(value, FIELDS[key]):
                raise list_error(f"field {key!r} has the wrong type")
        missing = [key for key in REQUIRED if key not in e or (key != "replace" and not e[key])]
        if missing:
            raise list_error(f"without {', '.join(missing)}")
        if e.get("kills_at", "compile") != "compile":
            raise list_error("kills_at can only be \"compile\"")
        path = pathlib.PurePosixPath(self.file)
        if ".." in path.parts or not (path.parts[0] == "include" or path.parts[:2] == ("examples", "compare")):
            raise list_error("file must be below include/ or examples/compare/")
        if not (root / path).is_file():
            raise list_error("the file does not exist")
        if e["search"] == e["replace"]:
            raise list_error("search and replace are the same text")
        text = (root / path).read_text(encoding="utf-8")
        count = text.count(e["search"])
        if count != 1:
            raise list_error(f"the search text occurs {count} times, not once: {e['search']!r}")
        return text.replace(e["search"], e["replace"])

    def resolve(self, root):
        """Fills units from killed_by."""
        for test in self.entry["killed_by"]:
            found = test_units(root, test)
            sanitize = self.entry.get("sanitize")
            if all(EMULATED.match(path) for path, variant in found):
                variant = f"simt_{sanitize}" if sanitize else "simt"
                if variant not in SIMT_SANITIZERS:
                    raise list_error("sanitize: of kernels, \"address\", \"thread\" or \"memory\"")
                found = [(path, variant) for path, _ in found]
            elif isinstance(sanitize, str):
                raise list_error("sanitize: only true, for what is not a test of kernels")
            elif sanitize:
                found = [(path, "sanitize" if variant in ("plain", "long") else variant) for path, variant in found]
            self.units += [unit for unit in found if unit not in self.units]


def is_fast_math(path):
    return re.search(r"(^|[/_])fast_math_test\.cpp$", path) is not None


def variant_of(path):
    return "fast_math" if is_fast_math(path) else "long" if RUNS_LONG.search(path) else "plain"


def test_units(root, test):
    """The (file, variant) pairs that a name in killed_by stands for."""
    if "/" in test:
        if not (root / test).is_file():
            raise list_error(f"killed_by: {test} does not exist")
        if test.endswith(".fail.cpp"):
            return [(test, "pair")]
        if not (test.startswith("tests/") and test.endswith("_test.cpp")):
            raise list_error(f"killed_by: {test} is neither tests/**/*_test.cpp nor *.fail.cpp")
        return [(test, variant_of(test))]
    match = re.fullmatch(r"test_(\w+?)(_long|_fast_math)?", test)
    files = []
    if match:
        for folder in (f"tests/unit/{match[1]}", f"tests/{match[1]}"):
            files += sorted(p.relative_to(root).as_posix() for p in (root / folder).glob("*_test.cpp"))
    if match and match[2] == "_fast_math":
        files = [path for path in files if is_fast_math(path)]
    else:
        files = [path for path in files if path.endswith("_long_test.cpp") == bool(match and match[2])]
    if not files:
        raise list_error(f"killed_by: there is no test program {test}")
    # In the ordinary program the fast-math tests are built like the others.
    return [(path, "plain" if is_fast_math(path) and match[2] != "_fast_math" else variant_of(path)) for path in files]


def read_lists(root):
    """All bugs, and complaints about what is not one."""
    bugs, problems, seen = [], [], {}
    for path in sorted((root / "tests/bugs").glob("*.json")):
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            problems.append(f"{path.name}: {error}")
            continue
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            problems.append(f"{path.name}: not an array of objects")
            continue
        for i, entry in enumerate(entries, 1):
            one = bug(f"{path.stem}:{i}", entry)
            try:
                planted = one.planted(root)
                one.resolve(root)
                twin = seen.setdefault((one.file, planted), one.name)
                if twin != one.name:
                    raise list_error(f"the same as {twin}")
                bugs.append(one)
            except list_error as error:
                problems.append(f"{one.name} {one.file}: {error}")
    return bugs, problems


class workshop:
    """The copies of the tree, one unplanted and one per job, and what has been built from them."""

    def __init__(self, root, scratch, options):
        self.base = scratch / "unplanted"
        self.options = options
        self.built = {}  # (source, variant) -> (object, set of files it was made from)
        self.times = {}  # unit -> (seconds to build, seconds to run) of the unplanted copy
        self.runtime = []  # objects of the emulator
        for part in ("include", "examples", "tests"):
            if (root / part).is_dir():
                shutil.copytree(root / part, self.base / part)
        self.trees = queue.Queue()
        for i in range(options.jobs):
            tree = scratch / f"planted_{i}"
            for part in ("include", "examples"):
                if (self.base / part).is_dir():
                    shutil.copytree(self.base / part, tree / part)
            self.trees.put(tree)

    def compiler(self, variant):
        return ["clang++"] if variant == "simt_memory" else self.options.compiler

    def flags(self, variant, tree):
        if variant in SIMT_SANITIZERS:
            options = ["-std=c++20", *SIMT, *SIMT_SANITIZERS[variant]]
            if variant == "simt_memory":  # so that std::string is a part of the program
                options.append("-D_GLIBCXX_EXTERN_TEMPLATE=0")
        else:
            options = ["-std=c++20", *VARIANTS[variant]]
        if variant == "sanitize":
            options.append(SANITIZERS)
        tests, compare = self.base / "tests", self.base / "examples/compare"
        return [*options, f'-DKVCRUMB_TEST_DATA_DIR="{tests}/data"', f'-DKVCRUMB_GOLDEN_DIR="{tests}/golden"',
                '-DKVCRUMB_REAL_DATA_DIR=""', f'-DKVCRUMB_SAMPLE_PATH="{compare}/sample.safetensors"',
                f'-DKVCRUMB_SAMPLE_DIR="{compare}"', *self.options.flags, f"-I{tree}/include", f"-I{tests}",
                f"-I{tree}/examples/compare"]

    def call(self, command, **keywords):
        return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", **keywords)

    def must(self, command):
        run = self.call(command)
        if run.returncode != 0:
            sys.exit(f"{shlex.join(map(str, command))}\n{run.stdout}")

    def prepare(self, variants):
        """Catch2's header and main, once for each variant; the emulator."""
        for variant in sorted(variants):
            compiler, emulated = self.compiler(variant), variant in SIMT_SANITIZERS
            version = self.call([*compiler, "--version"])
            header = self.base / "catch" / variant / "catch.hpp"
            header.parent.mkdir(parents=True)
            header.write_text(('#include "support/simt/simt.hpp"\n' if emulated else "") +
                              '#include "support/catch.hpp"\n', encoding="utf-8")
            self.must([*compiler, *self.flags(variant, self.base), "-x", "c++-header", header, "-o",
                       f"{header}.{'pch' if 'clang' in version.stdout else 'gch'}"])
            plain = variant == "simt_memory"  # without Catch2: tests/support/simt/README.md
            main = "tests/support/simt/plain/main.cpp" if plain else "tests/support/catch_main.cpp"
            if plain or not self.options.link:
                first = ["-include", header] if plain else []
                self.must([*compiler, *self.flags(variant, self.base), *first, "-c", self.base / main, "-o",
                           header.with_name("main.o")])
            if emulated and not self.runtime:
                for source in sorted((self.base / "tests/support/simt").glob("*.cpp")):
                    self.runtime.append(header.parent / f"{source.stem}.o")
                    self.must([*self.options.compiler, "-std=c++20", "-O2", f"-I{self.base}/tests", "-c", source, "-o",
                               self.runtime[-1]])

    def sources(self, test):
        """What is linked into the program of one test file."""
        if not test.startswith("tests/unit/compare/"):
            return [test]
        parts = sorted((self.base / "examples/compare").glob("*.cpp"))
        return [test] + [p.relative_to(self.base).as_posix() for p in parts if not p.stem.startswith(UNLINKED)]

    def compile(self, source, variant, tree, target):
        """(exit status, messages). A test is always taken from the unplanted copy."""
        place = self.base if source.startswith("tests/") else tree
        header = self.base / "catch" / variant / "catch.hpp"
        first = ["-include", header] if source.startswith("tests/") else []
        run = self.call([*self.compiler(variant), *self.flags(variant, tree), *first, "-MMD", "-MF", f"{target}.d", "-c",
                         place / source, "-o", target])
        return run.returncode, run.stdout

    def link(self, objects, variant, test, target):
        catch = self.options.link
        if not catch or variant == "simt_memory":
            catch = [self.base / "catch" / variant / "main.o"]
        extra = SIMT_SANITIZERS[variant] if variant in SIMT_SANITIZERS else [SANITIZERS] if variant == "sanitize" else []
        libraries = COMPARE_LIBRARIES if len(objects) > 1 else []
        runtime = self.runtime if variant in SIMT_SANITIZERS else []
        run = self.call([*self.compiler(variant), *extra, *objects, *runtime, *catch, *libraries, "-o", target])
        if run.returncode != 0:
            raise list_error(f"{test} cannot be linked:\n{run.stdout}")

    def run_pair(self, test, tree):
        """The exit status and output of one pair of compile-fail tests."""
        script = self.base / "tests/compile_fail/check_pair.py"
        return self.call([sys.executable, script, self.base / test[:-len(".fail.cpp")], *self.options.compiler,
                          "-std=c++20", f"-I{tree}/include"])

    def build_unplanted(self, source_and_variant):
        """Compiles one source of the unplanted copy; an explanation if it does not compile."""
        source, variant = source_and_variant
        start = time.monotonic()
        target = self.base / "objects" / variant / (source.replace("/", "+") + ".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        status, output = self.compile(source, variant, self.base, target)
        if status != 0:
            return f"{source} does not compile:\n{output}"
        made_from = pathlib.Path(f"{target}.d").read_text(encoding="utf-8").replace("\\\n", " ").split()[1:]
        base = os.path.realpath(self.base) + "/"
        files = {os.path.realpath(path) for path in made_from}
        self.built[source, variant] = (target, {p[len(base):] for p in files if p.startswith(base)} | {source})
        self.times[source, variant] = (time.monotonic() - start, 0.0)
        return ""

    def run_unplanted(self, unit):
        """Runs one test of the unplanted copy; an explanation if it is not green."""
        test, variant = unit
        start = time.monotonic()
        if variant == "pair":
            run = self.run_pair(test, self.base)
            self.times[unit] = (time.monotonic() - start, 0.0)
            return f"{test}:\n{run.stdout}" if run.returncode != 0 else ""
        program = self.base / "objects" / variant / (test.replace("/", "+") + ".program")
        self.link([self.built[source, variant][0] for source in self.sources(test)], variant, test, program)
        start = time.monotonic()
        red, text = self.run(program, 20 * self.options.time_limit)
        self.times[unit] = (self.times[unit][0], time.monotonic() - start)
        program.unlink()
        return f"{test}: {text}" if red else ""

    def run(self, program, limit):
        """(is it red, in which way)."""
        command = [program, "--abort", "--reporter", "compact"]
        environment = {k: v for k, v in os.environ.items() if k != "KVCRUMB_DATA_DIR"} | {"TSAN_OPTIONS": "halt_on_error=1"}
        try:
            run = self.call(command, timeout=limit, cwd=program.parent, env=environment)
        except subprocess.TimeoutExpired:
            return True, f"time limit of {limit:.0f} s"
        failed = re.search(r"([\w.]+):(\d+): failed", run.stdout)
        if run.returncode == 0:
            return False, ""
        if failed:
            return True, f"{failed[1]}:{failed[2]}"
        if run.returncode < 0:
            return True, signal.Signals(-run.returncode).name
        last = [line for line in run.stdout.splitlines() if "ERROR" in line or "runtime error" in line]
        return True, last[0].strip()[:100] if last else f"exit status {run.returncode}"

    def plant(self, one):
        """(killed, explanation) of one bug."""
        tree = self.trees.get()
        path = tree / one.file
        original = path.read_text(encoding="utf-8")
        try:
            path.write_text(one.planted(self.base), encoding="utf-8")
            affected = False
            for test, variant in sorted(one.units, key=lambda unit: sum(self.times[unit])):
                red = self.check(one, test, variant, tree)
                affected = affected or red is not None
                if red:
                    return True, red
            if not affected:
                raise list_error("no test of killed_by includes the file")
            return False, "no test of killed_by turns red: " + ", ".join(test for test, variant in one.units)
        finally:
            path.write_text(original, encoding="utf-8")
            self.trees.put(tree)

    def check(self, one, test, variant, tree):
        """How the test turns red, "" if it stays green, None if it cannot see the file."""
        if variant == "pair":
            run = self.run_pair(test, tree)
            return test if run.returncode != 0 else ""
        objects, affected = [], False
        for i, source in enumerate(self.sources(test)):
            ready, made_from = self.built[source, variant]
            if one.file not in made_from:
                objects.append(ready)
                continue
            affected = True
            target = tree / f"object_{i}.o"
            status, output = self.compile(source, variant, tree, target)
            if status != 0:
                if one.entry.get("kills_at") == "compile" and re.search(r"static[ _]assert", output):
                    return f"{test}: static_assert"
                errors = [line for line in output.splitlines() if "error" in line][:5]
                raise list_error("\n".join([f"{source} does not compile with the bug:", *errors]))
            objects.append(target)
        if not affected:
            return None
        program = tree / "program"
        self.link(objects, variant, test, program)
        red, text = self.run(program, max(self.options.time_limit, 10 * self.times[test, variant][1]))
        return f"{test}: {text}" if red else ""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only check that every entry fits the tree")
    parser.add_argument("--self-test", action="store_true", help="try this script on a small tree of its own")
    parser.add_argument("--list", action="store_true", help="print the bugs that are selected and plant none")
    parser.add_argument("--only", metavar="REGEX", default="", help="bugs whose name, file or reason matches")
    parser.add_argument("--shard", metavar="I/N", default="1/1", help="every N-th bug, starting with the I-th")
    parser.add_argument("--time-budget", metavar="SECONDS", type=float, help="plant no further bug after this time; "
                        "bugs that were not tried make the exit status 1")
    parser.add_argument("--time-limit", metavar="SECONDS", type=float, default=30.0, help="how long a planted test may "
                        "run; ten times as long as the unplanted one if that is more (default: 30)")
    parser.add_argument("--at-least", metavar="N", type=int, default=1, help="fewer bugs than this are an error")
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("KVCRUMB_JOBS") or os.cpu_count() or 1))
    parser.add_argument("--compiler", type=shlex.split, default=["g++"])
    parser.add_argument("--flags", type=shlex.split, default=[], help="further compiler options, such as -I for Catch2")
    parser.add_argument("--link", type=shlex.split, default=[], help="a compiled Catch2 with main; without it, "
                        "tests/support/catch_main.cpp is compiled")
    parser.add_argument("--scratch", type=pathlib.Path, help="folder for the copies (default: a temporary one)")
    options = parser.parse_args()
    if not re.fullmatch(r"[1-9]\d*/[1-9]\d*", options.shard):
        parser.error("--shard is I/N, such as 1/4")
    options.shard = tuple(int(x) for x in options.shard.split("/"))
    if options.shard[0] > options.shard[1] or options.jobs < 1:
        parser.error("--shard: I is at most N; --jobs is at least 1")
    return options


def plant_all(shop, bugs, options, start):
    """Prints one line per bug; returns the bugs that were not killed, the entries that are wrong, those not tried."""
    survivors, wrong, untried, done = [], [], [], 0
    deadline = None if options.time_budget is None else start + options.time_budget

    def attempt(one):
        begin = time.monotonic()
        if deadline is not None and begin > deadline:
            return one, "untried", "", 0.0
        try:
            killed, text = shop.plant(one)
            return one, "killed" if killed else "SURVIVED", text, time.monotonic() - begin
        except list_error as error:
            return one, "WRONG", str(error), time.monotonic() - begin

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as executor:
        for one, outcome, text, seconds in executor.map(attempt, bugs):
            done += 1
            if outcome == "untried":
                untried.append(one)
                continue
            (survivors if outcome == "SURVIVED" else wrong if outcome == "WRONG" else []).append(one)
            print(f"[{done}/{len(bugs)}] {outcome:8} {seconds:5.1f} s  {one.name}  {one.file}: {one.why}\n"
                  f"{'':17} {text}", flush=True)
    return survivors, wrong, untried


def self_test(options):
    """A small tree with one bug of every kind; complaints about what this script says of it."""
    header = ("#pragma once\n#include <cstdlib>\ninline int twice(int x) { return 2 * x; }\n"
              "inline int unused(int x) { return x; }\nconstexpr int three() { return 3; }\n")
    test = ('#include "support/catch.hpp"\n#include "kvcrumb/a.hpp"\nstatic_assert(three() == 3);\n'
            'TEST_CASE("twice") { CHECK(twice(3) == 6); }\n')
    doubled = "return 2 * x;"
    cases = [  # search, replace, further fields, what is expected
        (doubled, "return x;", {}, "killed"),
        (doubled, "return 3 * x;", {"killed_by": ["test_a"]}, "killed"),
        (doubled, "std::abort();", {}, "killed"),
        (doubled, "for (;;) x = x < 9 ? x + 1 : 0;", {}, "killed"),
        (doubled, "int y[2]; y[x - 1] = x; return y[x - 1] * 2;", {"sanitize": True}, "killed"),
        ("return 3;", "return 4;", {"kills_at": "compile"}, "killed"),
        ("{ return x; }", "{ return x + 1; }", {}, "SURVIVED"),
        ("return 3;", "return 5;", {}, "WRONG"),
        (doubled, "return 2 * x", {"kills_at": "compile"}, "WRONG"),
        (doubled, "return 7 * x;", {"killed_by": ["tests/unit/a/other_test.cpp"]}, "WRONG"),
        ("absent", "x", {}, "stale"),
        ("x", "y", {}, "stale"),
        (doubled, doubled, {}, "stale"),
        (doubled, "return x;", {}, "stale"),  # the first one again
        (doubled, "return 8;", {"killed_by": ["test_absent"]}, "stale"),
        (doubled, "return 9;", {"killed_by": []}, "stale"),
        (doubled, "return 10;", {"reason": "unknown field"}, "stale"),
        (doubled, "return 11;", {"file": "tests/unit/a/a_test.cpp"}, "stale"),
    ]
    entries = [{"file": "include/kvcrumb/a.hpp", "search": search, "replace": replace, "why": "self-test",
                "killed_by": ["tests/unit/a/a_test.cpp"]} | more for search, replace, more, expected in cases]
    problems = []
    with tempfile.TemporaryDirectory(prefix="bugs-", dir=options.scratch) as scratch:
        tree = pathlib.Path(scratch, "tree")
        for path, text in (("include/kvcrumb/a.hpp", header), ("tests/unit/a/a_test.cpp", test),
                           ("tests/unit/a/other_test.cpp", test.replace('#include "kvcrumb/a.hpp"\n', "")
                            .replace("static_assert(three() == 3);\n", "").replace("twice(3)", "6")),
                           ("tests/bugs/list.json", json.dumps(entries))):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text, encoding="utf-8")
        here = pathlib.Path(__file__).resolve()
        shutil.copy(here, tree / "tests/bugs")
        shutil.copytree(here.parents[1] / "support", tree / "tests/support")

        def call(*words):
            command = [sys.executable, tree / "tests/bugs" / here.name, "--time-limit=1", f"--jobs={options.jobs}",
                       f"--compiler={shlex.join(options.compiler)}", f"--flags={shlex.join(options.flags)}",
                       f"--link={shlex.join(options.link)}", f"--scratch={scratch}", *words]
            run = subprocess.run(command, capture_output=True, text=True, errors="replace")
            return run.returncode, run.stdout + run.stderr

        def expect(what, good, output):
            if not good:
                problems.append(f"self-test, {what}:\n{output}")

        status, output = call()
        for i, (search, replace, more, expected) in enumerate(cases, 1):
            pattern = f"stale or wrong: list:{i} " if expected == "stale" else rf"\] {expected} .* list:{i} "
            expect(f"entry {i} should be {expected}", re.search(pattern, output), output)
        expect("exit status of a list with faults", status == 1, output)
        expect("the tree itself is changed", (tree / "include/kvcrumb/a.hpp").read_text() == header, "")
        status, output = call("--check")
        expect("exit status of --check with stale entries", status == 1, output)
        good = [entry for entry, case in zip(entries, cases) if case[3] == "killed"]
        (tree / "tests/bugs/list.json").write_text(json.dumps(good), encoding="utf-8")
        status, output = call("--check", f"--at-least={len(good)}")
        expect("exit status of --check", status == 0, output)
        status, output = call("--check", f"--at-least={len(good) + 1}")
        expect("exit status of --check with too few bugs", status == 1, output)
        status, output = call("--shard=1/6")
        expect("exit status where all are killed", status == 0 and "1 bugs: 1 killed" in output, output)
        status, output = call("--time-budget=0")
        expect("exit status where time is up", status == 1 and f"{len(good)} not tried" in output, output)
        (tree / "tests/unit/a/a_test.cpp").write_text(test.replace("== 6", "== 7"), encoding="utf-8")
        status, output = call()
        expect("a red test before planting", status == 1 and "red before any bug" in output, output)
    print(f"{len(cases)} bugs planted in a small tree")
    return problems


def processor_flags():
    info = pathlib.Path("/proc/cpuinfo")
    return {"", *(info.read_text(encoding="utf-8").split() if info.exists() else [])}


def main():
    options = arguments()
    if options.scratch:
        options.scratch.mkdir(parents=True, exist_ok=True)
    if options.self_test:
        problems = self_test(options)
        print("\n".join([*problems, f"{len(problems)} problem(s)"]))
        sys.exit(1 if problems else 0)
    root = pathlib.Path(__file__).resolve().parents[2]
    bugs, problems = read_lists(root)
    if len(bugs) < options.at_least:
        problems.append(f"{len(bugs)} bugs that can be planted; at least {options.at_least} are wanted")
    for problem in problems:
        print(f"stale or wrong: {problem}")
    if options.check:
        print(f"{len(bugs)} bugs, {len(problems)} problem(s)")
        sys.exit(1 if problems else 0)

    bugs = [one for one in bugs if re.search(options.only, f"{one.name} {one.file} {one.why}")]
    bugs = bugs[options.shard[0] - 1::options.shard[1]]
    if options.list:
        for one in bugs:
            print(f"{one.name}  {one.file}: {one.why}\n{'':8}{', '.join(one.entry['killed_by'])}")
        sys.exit(1 if problems else 0)
    flags = processor_flags()
    for one in bugs:
        if one.entry.get("needs", "") not in flags:
            print(f"LEFT OUT, this processor has no {one.entry['needs']}: {one.name}  {one.why}")
    bugs = [one for one in bugs if one.entry.get("needs", "") in flags]
    if not bugs:
        sys.exit("no bug is selected")

    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bugs-", dir=options.scratch) as scratch:
        shop = workshop(root, pathlib.Path(scratch), options)
        units = sorted({unit for one in bugs for unit in one.units})
        shop.prepare({variant for test, variant in units if variant != "pair"})
        objects = sorted({(source, v) for test, v in units if v != "pair" for source in shop.sources(test)})
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as executor:
            red = [text for text in executor.map(shop.build_unplanted, objects) if text]
            red = red or [text for text in executor.map(shop.run_unplanted, units) if text]
        for (test, variant), (build, run) in sorted(shop.times.items()):
            if (test, variant) in units:
                print(f"unplanted: {build:5.1f} s to build, {run:5.1f} s to run  {test} ({variant})")
        if red:
            sys.exit("\n".join(red) + f"\n{len(red)} red before any bug is planted")
        print(f"unplanted: {len(units)} tests are green after {time.monotonic() - start:.0f} s", flush=True)
        survivors, wrong, untried = plant_all(shop, bugs, options, start)

    killed = len(bugs) - len(survivors) - len(wrong) - len(untried)
    print(f"\n{len(bugs)} bugs: {killed} killed, {len(survivors)} survived, {len(wrong)} wrong, "
          f"{len(untried)} not tried; {len(problems)} stale entries; "
          f"{time.monotonic() - start:.0f} s with {options.jobs} job(s)")
    for title, rest in (("SURVIVED", survivors), ("WRONG", wrong), ("NOT TRIED, time is up", untried)):
        for one in rest:
            print(f"{title}: {one.name}  {one.file}: {one.why}")
    sys.exit(1 if survivors or wrong or untried or problems else 0)


main()
