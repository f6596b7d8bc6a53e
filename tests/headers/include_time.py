#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""User CPU time of compiling a translation unit that does nothing but include one header; best of three.

usage: include_time.py --header HEADER --limit SECONDS -- COMPILER OPTIONS...
"""
import argparse
import os
import subprocess
import sys
import tempfile

REPEATS = 3

parser = argparse.ArgumentParser()
parser.add_argument("--header", required=True)
parser.add_argument("--limit", type=float, required=True, help="seconds; 0 means no limit")
parser.add_argument("command", nargs="+")
arguments = parser.parse_args()

with tempfile.TemporaryDirectory() as folder:
    source = os.path.join(folder, "unit.cpp")
    with open(source, "w", encoding="utf-8") as file:
        file.write(f"#include <{arguments.header}>\n")
    times = []
    for _ in range(REPEATS):
        before = os.times().children_user
        subprocess.run([*arguments.command, "-c", source, "-o", os.path.join(folder, "unit.o")], check=True)
        times.append(os.times().children_user - before)

print(f"{arguments.header}: {min(times):.2f} s of user CPU time (all runs: {', '.join(f'{t:.2f}' for t in times)})")
if 0 < arguments.limit < min(times):
    sys.exit(f"more than the limit of {arguments.limit:.2f} s (KVCRUMB_UMBRELLA_SECONDS)")
