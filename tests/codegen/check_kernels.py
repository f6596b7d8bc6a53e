#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles kernel instances of kernels.cu one by one and checks what the compiler made of them.

usage: check_kernels.py [--only REGEX] [--json FILE] [--table FILE] [--jobs N] [--arch sm_90a]
       check_kernels.py --compile-only --arch sm_80 --only REGEX      does it compile for another target

Checked for sm_90a: no spills, no stack, registers, code size, processor time of nvcc, resident warps of a
multiprocessor of an H100 (from registers and shared memory); with a disassembler, the instructions that a warp issues for
one tile on the fast path. nvcc is $KVCRUMB_NVCC or that of the path or of /usr/local/cuda; nvdisasm is
$KVCRUMB_NVDISASM or that of the path or of nvcc's folder (PyPI has it: nvidia-cuda-nvdisasm). Exit status 77: no nvcc.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

import sass

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INSTANCE = re.compile(r"^struct (\w+) : (decode|encode)<", re.MULTILINE)
MAIN_KERNEL = {"decode": "decode_kernel", "encode": "encode_kernel", "append": "append_kernel"}

# One multiprocessor of an H100.
SHARED_BYTES, BLOCK_RESERVE, REGISTERS, MOST_WARPS, MOST_BLOCKS = 233472, 1024, 65536, 64, 32

CODE_BYTES = 200 << 10  # of a decode kernel
SECONDS = 20  # of processor time for one instance; machines differ
RESIDENT_WARPS = 8
MOST_REGISTERS = 255  # what a kernel may use is decided by the resident warps
SLOTS_PER_VALUE = {"ott2": 1.2}  # the others are reported


def find_tool(variable, name, *folders):
    candidates = [shutil.which(name), *(str(pathlib.Path(f) / name) for f in folders)]
    if os.environ.get(variable):
        candidates = [os.environ[variable]]
    return next((c for c in candidates if c and os.access(c, os.X_OK)), None)


def instances():
    """(name, kind) of all; an encode instance is compiled twice, for encode and append."""
    found = INSTANCE.findall((HERE / "kernels.cu").read_text(encoding="utf-8"))
    return found + [(name.replace("encode_", "append_"), "append") for name, kind in found if kind == "encode"]


def compile_one(nvcc, name, kind, arch, folder, extra):
    """(processor seconds, messages of ptxas, cubin)."""
    cubin = folder / f"{name}.{arch}.cubin"
    chosen = name.replace("append_", "encode_") if kind == "append" else name
    command = [nvcc, "-std=c++20", f"-arch={arch}", "-cubin", "-Xptxas", "-v", "-DNDEBUG", f"-I{ROOT}/include",
               f"-DKVCRUMB_{kind.upper()}={chosen}", *extra, str(HERE / "kernels.cu"), "-o", str(cubin)]
    messages = folder / f"{name}.{arch}.txt"
    with open(messages, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = messages.read_text(encoding="utf-8", errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{name} ({arch}) does not compile:\n{text}")
    return usage.ru_utime + usage.ru_stime, text, cubin


def ptxas_facts(messages):
    """{function: facts} of `ptxas -v`."""
    found, current = {}, None
    for line in messages.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)'", line):
            current = found.setdefault(match[1], {"static_shared": 0})
        elif current is not None and (match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, "
                                                         r"(\d+) bytes spill loads", line)):
            current["stack"], current["spills"] = int(match[1]), int(match[2]) + int(match[3])
        elif current is not None and (match := re.search(r"Used (\d+) registers", line)):
            current["registers"] = int(match[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                current["static_shared"] = int(shared[1])
    return found


def code_bytes(cubin, function):
    """Size of a function's code: of the ELF section .text.<function>."""
    data = cubin.read_bytes()
    offset, = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * size) for i in range(count)]
    strings = headers[names][4]
    for h in headers:
        name = data[strings + h[0]:data.index(b"\0", strings + h[0])].decode()
        if name == ".text." + function:
            return h[5]
    raise ValueError(f"no code of {function} in {cubin}")


def resident_warps(registers, threads, shared):
    warps = threads // 32
    blocks = min(REGISTERS // (-(-registers // 8) * 8 * 32 * warps), SHARED_BYTES // (shared + BLOCK_RESERVE),
                 MOST_WARPS // warps, MOST_BLOCKS)
    return blocks * warps


def examine(name, kind, options, tools, folder):
    nvcc, disassembler = tools
    seconds, messages, cubin = compile_one(nvcc, name, kind, options.arch, folder, ["-DKVCRUMB_MAIN_KERNEL_ONLY"])
    all_facts = ptxas_facts(messages)
    function, facts = next((f, x) for f, x in all_facts.items() if MAIN_KERNEL[kind] in f)
    constants = next(re.search(r"factsILi(\d+)ELi(\d+)ELi(\d+)ELi(\d+)E", f) for f in all_facts if "factsILi" in f)
    dynamic, threads, tokens, head_dim = map(int, constants.groups())
    warnings = sorted(set(re.findall(rf"{ROOT}/(\S+?\(\d+\): warning .*)", messages)))
    result = {"name": name, "kernel": kind, "warnings": warnings, "head_dim": head_dim, "tile_tokens": tokens, "threads": threads, **facts,
              "dynamic_shared": dynamic, "code_bytes": code_bytes(cubin, function),
              "resident_warps": resident_warps(facts["registers"], threads, facts["static_shared"] + dynamic),
              "compile_seconds": round(seconds, 1)}
    if kind == "decode" and disassembler:
        loop = sass.main_loop(disassembler, str(cubin), function)
        loop["per_value"] = round(loop["slots"] / (2 * tokens * head_dim / 32), 3)
        result["loop"] = loop
    return result


def complaints(r):
    name = r["name"]
    yield from (f"compiles with a warning: {text}" for text in r["warnings"])
    if r["spills"]:
        yield f"spills {r['spills']} bytes"
    if r["stack"]:
        yield f"has {r['stack']} bytes of stack"
    if r["kernel"] == "decode":
        if r["registers"] > MOST_REGISTERS:
            yield f"uses {r['registers']} registers, more than {MOST_REGISTERS}"
        if r["code_bytes"] > CODE_BYTES:
            yield f"has {r['code_bytes']} bytes of code, more than {CODE_BYTES}"
    if r["resident_warps"] < RESIDENT_WARPS:
        yield f"lets {r['resident_warps']} warps reside on a multiprocessor, fewer than {RESIDENT_WARPS}"
    if r["compile_seconds"] > SECONDS:
        yield f"takes {r['compile_seconds']} s of processor time to compile, more than {SECONDS}"
    loop = r.get("loop")
    if loop and loop["hmma"] != loop["hmma_in_loop"]:
        yield f"has {loop['hmma_in_loop']} HMMA in its loop, of which one round executes {loop['hmma']}"
    if loop and loop["per_value"] > SLOTS_PER_VALUE.get(name, float("inf")):
        yield f"issues {loop['per_value']} instructions per value and lane, more than {SLOTS_PER_VALUE[name]}"


def table(results):
    lines = ["| kernel | D | T | registers | static + dynamic shared | warps per SM | code KiB | HMMA per tile | "
             "instructions per tile | per value and lane | nvcc s |",
             "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |"]
    for r in results:
        loop = r.get("loop", {})
        shared = f"{r['static_shared']} + {r['dynamic_shared']}"
        cells = [r["name"], r["head_dim"], r["tile_tokens"], r["registers"], shared, r["resident_warps"],
                 f"{r['code_bytes'] / 1024:.0f}", loop.get("hmma", ""), loop.get("slots", ""), loop.get("per_value", ""),
                 f"{r['compile_seconds']:.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="instances whose name matches")
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--table", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("KVCRUMB_JOBS") or 1))
    options = parser.parse_args()
    nvcc = find_tool("KVCRUMB_NVCC", "nvcc", "/usr/local/cuda/bin")
    if nvcc is None:
        print("skipped: no nvcc")
        sys.exit(77)
    disassembler = find_tool("KVCRUMB_NVDISASM", "nvdisasm", pathlib.Path(nvcc).parent)
    if disassembler is None and not options.compile_only:
        print("skipped: no nvdisasm, instructions are not counted (PyPI: nvidia-cuda-nvdisasm, or set KVCRUMB_NVDISASM)")
    selected = [(name, kind) for name, kind in instances() if re.search(options.only, name)]
    if not selected:
        sys.exit("no instance is selected")
    results, problems = [], []
    with tempfile.TemporaryDirectory(prefix="codegen-") as scratch, \
            concurrent.futures.ThreadPoolExecutor(options.jobs) as executor:
        folder = pathlib.Path(scratch)

        def work(one):
            try:
                if options.compile_only:
                    compile_one(nvcc, *one, options.arch, folder, [])
                    return None, ""
                return examine(*one, options, (nvcc, disassembler), folder), ""
            except (RuntimeError, ValueError, StopIteration) as error:
                return None, f"{one[0]}: {error}"

        for (name, kind), (result, problem) in zip(selected, executor.map(work, selected)):
            if problem:
                problems.append(problem)
            if result:
                results.append(result)
                problems += [f"{name} {text}" for text in complaints(result)]
            print(f"{name}: {'red' if problem else 'compiled for ' + options.arch}", flush=True)
    if results:
        print(table(results), end="")
        if options.table:
            options.table.write_text(table(results), encoding="utf-8")
        if options.json:
            version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
            release = re.search(r"release [\d.]+, V([\d.]+)", version)
            options.json.write_text(json.dumps({"nvcc": release[1] if release else "?", "arch": options.arch,
                                                "kernels": results}, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*problems, f"{len(selected)} kernels, {len(problems)} problem(s)"]))
    sys.exit(1 if problems else 0)


main()
