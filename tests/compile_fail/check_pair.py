#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks one pair of compile-fail tests.

usage: check_pair.py PATH/NAME COMPILER OPTIONS...      PATH/NAME.fail.cpp and PATH/NAME.pass.cpp
       check_pair.py --self-test COMPILER OPTIONS...
"""
import os
import re
import subprocess
import sys
import tempfile

EXPECT = re.compile(r"^\s*//\s*expect:\s*(.+?)\s*$", re.MULTILINE)


def compile_only(source, compiler):
    # Without carets the output holds messages only, so that an expectation cannot match the source text itself.
    version = subprocess.run([compiler[0], "--version"], capture_output=True, text=True, check=True).stdout
    no_carets = "-fno-caret-diagnostics" if "clang" in version else "-fno-diagnostics-show-caret"
    command = [*compiler, "-fsyntax-only", no_carets, "-fdiagnostics-color=never", source]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return run.returncode, run.stdout + run.stderr


def check(pair, compiler):
    """Complaints about one pair."""
    fail, twin = pair + ".fail.cpp", pair + ".pass.cpp"
    missing = [path for path in (fail, twin) if not os.path.exists(path)]
    if missing:
        return [f"{path} does not exist; a compile-fail test is a pair" for path in missing]
    with open(fail, encoding="utf-8") as file:
        expectations = EXPECT.findall(file.read())
    if not expectations:
        return [f"{fail} has no `// expect: <regex>` line"]

    complaints = []
    status, output = compile_only(fail, compiler)
    if status == 0:
        complaints.append(f"{fail} compiles")
    elif "fatal error" in output:
        complaints.append(f"{fail} fails for another reason:\n{output}")
    else:
        complaints += [f"{fail} fails without a message like /{e}/:\n{output}" for e in expectations
                       if not re.search(e, output)]
    status, output = compile_only(twin, compiler)
    if status != 0:
        complaints.append(f"{twin} does not compile:\n{output}")
    return complaints


def self_test(compiler):
    """A good pair must pass; every kind of bad pair must be reported."""
    template = "template <int Bits> struct codec {{ static_assert(Bits <= 8, \"one to eight bits\"); }};\n{}codec<{}> c;\n"
    expect = "// expect: one to eight bits\n"
    good_fail, good_pass = template.format(expect, 9), template.format("", 8)
    cases = [
        ("good", good_fail, good_pass, False),
        ("compiles", template.format(expect, 8), good_pass, True),
        ("twin fails", good_fail, template.format("", 9), True),
        ("other message", template.format("// expect: nine lives\n", 9), good_pass, True),
        ("message only in the source", template.format("// expect: codec<9> c\n", 9), good_pass, True),
        ("no expectation", template.format("", 9), good_pass, True),
        ("missing header", expect + "#include <kvcrumb/absent.hpp>\n" + good_fail, good_pass, True),
        ("no twin", good_fail, None, True),
    ]
    problems = []
    for name, fail, twin, reported in cases:
        with tempfile.TemporaryDirectory() as folder:
            for suffix, text in ((".fail.cpp", fail), (".pass.cpp", twin)):
                if text is not None:
                    with open(os.path.join(folder, "pair" + suffix), "w", encoding="utf-8") as file:
                        file.write(text)
            complaints = check(os.path.join(folder, "pair"), compiler)
        if bool(complaints) != reported:
            problems.append(f"self-test `{name}`: {complaints or 'nothing reported'}")
    return problems


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    what, compiler = sys.argv[1], sys.argv[2:]
    problems = self_test(compiler) if what == "--self-test" else check(what, compiler)
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


main()
