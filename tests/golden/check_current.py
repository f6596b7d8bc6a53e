#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the generator into an empty folder and compares every .bin and .json byte for byte with the golden files.

usage: check_current.py GENERATOR GOLDEN_FOLDER EMPTY_FOLDER
"""
import pathlib
import shutil
import subprocess
import sys


def contents(folder):
    return {p.name: p.read_bytes() for p in pathlib.Path(folder).iterdir() if p.suffix in (".bin", ".json")}


generator, golden_folder, fresh_folder = sys.argv[1:4]
shutil.rmtree(fresh_folder, ignore_errors=True)
pathlib.Path(fresh_folder).mkdir(parents=True)
subprocess.run([generator, fresh_folder], check=True)
golden, fresh = contents(golden_folder), contents(fresh_folder)
wrong = [name for name in sorted(golden.keys() | fresh.keys()) if golden.get(name) != fresh.get(name)]
for name in wrong:
    state = "not in the repository" if name not in golden else "no longer written" if name not in fresh else "differs"
    print(f"{name}: {state}")
if not fresh:
    print("the generator wrote no file")
sys.exit(1 if wrong or not fresh else 0)
