#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the CTest file with one entry per Catch2 test case of a test program.

Written here because the script that comes with Catch2 2.13 registers nothing, silently, when the program crashes while
listing, and cannot take brackets in test names. Here both a crash and an empty list are errors.

usage: discover_tests.py PROGRAM OUTPUT LABELS TIMEOUT
"""
import os
import subprocess
import sys


def list_tests(program):
    """Names of all visible test cases; understands Catch2 2.13 and 3."""
    run = subprocess.run([program, "--list-test-names-only"], capture_output=True, text=True)
    names = [line for line in run.stdout.splitlines() if line]
    if run.returncode == min(len(names), 255):  # 2.13 returns the number of tests, at most 255
        return names, 2
    run = subprocess.run([program, "--list-tests", "--verbosity", "quiet"], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{program} failed while listing its tests (exit status {run.returncode}):\n{run.stdout}{run.stderr}")
    return [line for line in run.stdout.splitlines() if line], 3


def catch_pattern(name):
    """The Catch2 test specification that selects exactly `name`."""
    return "".join("\\" + c if c in '\\,[]"*~' else c for c in name)


def cmake_bracket(text):
    equals = "="
    while f"]{equals}]" in text or text.endswith("]" + equals):
        equals += "="
    return f"[{equals}[{text}]{equals}]"


def main():
    program, output, labels, timeout = sys.argv[1:5]
    names, catch_version = list_tests(program)
    names = [n[1:-1] if len(n) > 1 and n[0] == n[-1] == '"' else n for n in (n.strip() for n in names)]
    if not names:
        sys.exit(f"{program} contains no tests")
    if len(set(names)) != len(names):
        sys.exit(f"{program} has test cases of equal name")
    group = os.path.basename(program)
    # Without this, Catch2 2.13 calls a name that matches no test a success.
    strict = "--warn NoTests" if catch_version == 2 else "--warn UnmatchedTestSpec"
    # Only a test that was skipped and otherwise passed counts as skipped.
    skipped = r"skipped: .*(All tests passed|- none -|[0-9]+ skipped)"
    lines = []
    for name in names:
        test = cmake_bracket(f"{group}: {name}")
        lines.append(f"add_test({test} {cmake_bracket(program)} {cmake_bracket(catch_pattern(name))} {strict})")
        lines.append(f'set_tests_properties({test} PROPERTIES LABELS {cmake_bracket(labels)} TIMEOUT {timeout} '
                     f"SKIP_REGULAR_EXPRESSION {cmake_bracket(skipped)})")
    with open(output, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


main()
