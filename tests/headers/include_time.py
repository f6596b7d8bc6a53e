#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What including one header costs a compiler: user CPU time of a translation unit that does nothing else, over that of
one that includes the standard headers everybody has. Both are compiled in turn, and the best of five counts: seconds alone
say as much about the machine as about the header.

usage: include_time.py --header HEADER --limit RATIO -- COMPILER OPTIONS...
"""
import argparse
import os
import subprocess
import sys
import tempfile

REPEATS = 5
STANDARD = ("algorithm", "cmath", "span", "string", "vector")

parser = argparse.ArgumentParser()
parser.add_argument("--header", required=True)
parser.add_argument("--limit", type=float, required=True, help="times the standard headers; 0 means no limit")
parser.add_argument("command", nargs="+")
arguments = parser.parse_args()

with tempfile.TemporaryDirectory() as folder:

    def seconds(*headers):
        source = os.path.join(folder, "unit.cpp")
        with open(source, "w", encoding="utf-8") as file:
            file.writelines(f"#include <{header}>\n" for header in headers)
        before = os.times().children_user
        subprocess.run([*arguments.command, "-c", source, "-o", os.path.join(folder, "unit.o")], check=True)
        return os.times().children_user - before

    standard, times = zip(*((seconds(*STANDARD), seconds(arguments.header)) for _ in range(REPEATS)))

ratio = min(times) / min(standard)
print(f"{arguments.header}: {min(times):.2f} s of user CPU time, {ratio:.2f} times the standard headers' {min(standard):.2f} s")
if 0 < arguments.limit < ratio:
    sys.exit(f"more than the limit of {arguments.limit:.2f} (KVCRUMB_UMBRELLA_RATIO)")
