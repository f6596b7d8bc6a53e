#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the rules that every file under include/kvcrumb obeys and that a compiler cannot check.

usage: layer_order.py INCLUDE_FOLDER | --self-test

  order      a file includes only files of its own layer or of a layer above it (LAYERS, top first), without cycles
  reference  reference/ includes nothing but config.hpp and numeric/, and only an umbrella may include it
  host       a .hpp includes no .cuh and, apart from the library, only standard C++ headers (and INTRINSIC_HEADERS)
  target     an .inl is in host/target/ only and is included by host/targets.hpp only
  umbrella   kvcrumb.hpp, all_schemes.hpp and host.hpp together reach every .hpp except reference/ and interop/
  macros     only config.hpp, version.hpp and host/targets.hpp define macros, and all names start with KVCRUMB_
  device     __CUDA_ARCH__ is asked for only in config.hpp, ptx.cuh, numeric/ and trace/
  form       SPDX line, `//! @file` line, `#pragma once`, at most 300 lines, library headers included as "kvcrumb/..."
"""
import pathlib
import re
import sys
import tempfile

# A layer is a folder or a file directly under include/kvcrumb; each may include itself and what is listed before it.
LAYERS = [
    "config.hpp", "version.hpp", "status.hpp", "description.hpp",
    "numeric", "codec", "grouping", "transform", "layout", "trace", "scheme", "outlier", "kv_scheme.hpp", "view",
    "softmax_state.hpp", "attention", "attend.hpp", "cache", "schemes.hpp",
    "calibrate", "schemes", "host", "host.hpp",
    "interop", "ptx.cuh", "warp", "block", "kernel", "device",
    "kvcrumb.hpp", "kvcrumb.cuh", "all_schemes.hpp",
]
REFERENCE = "reference"
REFERENCE_MAY_INCLUDE = {"config.hpp", "numeric", REFERENCE}
UMBRELLAS = {"kvcrumb.hpp", "kvcrumb.cuh", "all_schemes.hpp", "host.hpp"}
TOPS = ("kvcrumb.hpp", "all_schemes.hpp", "host.hpp")
NOT_IN_UMBRELLA = {REFERENCE, "interop"}
MACRO_FILES = {"config.hpp", "version.hpp", "host/targets.hpp"}
TARGETS = "host/targets.hpp"  # compiles host/target/*.inl once for each instruction set
DEVICE_BRANCHES = {"config.hpp", "numeric", "trace", "ptx.cuh"}
INTRINSIC_HEADERS = {"immintrin.h", "arm_neon.h", "arm_sve.h", "cpuid.h", "sys/auxv.h", "sys/syscall.h", "unistd.h"}
LINE_LIMIT = 300

INCLUDE = re.compile(r'^\s*#\s*include\s*(<[^>]+>|"[^"]+"|.*)')
DEFINE = re.compile(r"^\s*#\s*define\s+(\w+)")
BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def layer_of(path):
    return path.split("/")[0]


def check_form(path, text):
    lines = text.splitlines()
    if len(lines) > LINE_LIMIT:
        yield f"has {len(lines)} lines; the limit is {LINE_LIMIT}"
    if not lines or lines[0] != "// SPDX-License-Identifier: Apache-2.0":
        yield "does not begin with the SPDX line"
    if len(lines) < 2 or not lines[1].startswith("//! @file "):
        yield "has no `//! @file` line after the SPDX line"
    if "#pragma once" not in lines and not path.endswith(".inl"):
        yield "has no #pragma once"


def check_macros(path, code):
    for line in code.splitlines():
        match = DEFINE.match(line)
        if match and not match[1].startswith("KVCRUMB_"):
            yield f"defines {match[1]}; macro names start with KVCRUMB_"
        if match and path not in MACRO_FILES:
            yield f"defines the macro {match[1]}; macros live in config.hpp"
        if "__CUDA_ARCH__" in line.split("//")[0] and layer_of(path) not in DEVICE_BRANCHES:
            yield "asks for __CUDA_ARCH__; only config.hpp, ptx.cuh, numeric/ and trace/ may"


def includes_of(path, code):
    """Yields (kind, target or complaint): kind is "own", "system" or "bad"."""
    for line in code.splitlines():
        match = INCLUDE.match(line)
        if not match:
            continue
        name = match[1].strip('<>"')
        if name.startswith("kvcrumb/"):
            yield "own", name.removeprefix("kvcrumb/")
        elif match[1].startswith("<"):
            yield "system", name
        else:
            yield "bad", f'includes {match[1]}; headers of the library are included as "kvcrumb/..."'


def check_order(path, target, files):
    mine, theirs = layer_of(path), layer_of(target)
    if target not in files:
        yield f"includes {target}, which does not exist"
    elif mine == REFERENCE:
        if theirs not in REFERENCE_MAY_INCLUDE:
            yield f"includes {target}; reference/ shares nothing with the library but numeric/"
    elif theirs == REFERENCE:
        if path not in UMBRELLAS:
            yield f"includes {target}; only an umbrella may include reference/"
    elif mine in LAYERS and theirs in LAYERS and LAYERS.index(theirs) > LAYERS.index(mine):
        yield f"includes {target}, but the layer {theirs} is below {mine}"


def find_cycle(graph):
    state = {}

    def visit(node, trail):
        state[node] = "open"
        for target in graph.get(node, ()):
            if state.get(target) == "open":
                return trail[trail.index(target):] + [target]
            if target not in state:
                cycle = visit(target, trail + [target])
                if cycle:
                    return cycle
        state[node] = "done"
        return None

    for node in graph:
        if node not in state:
            cycle = visit(node, [node])
            if cycle:
                return cycle
    return None


def reachable(graph, start):
    seen, todo = set(), [start]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(graph.get(node, ()))
    return seen


def check_tree(include_folder):
    """All violations, one sentence each."""
    root = pathlib.Path(include_folder) / "kvcrumb"
    files = {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in sorted(root.rglob("*")) if p.is_file()}
    if not files:
        return [f"{root} holds no files"]
    violations, graph = [], {}

    for path, text in files.items():
        complaints = []
        code = BLOCK_COMMENT.sub("", text)
        if path.endswith(".inl") and not path.startswith("host/target/"):
            complaints.append("is an .inl outside of host/target/")
        elif not path.endswith((".hpp", ".cuh", ".inl")):
            complaints.append("is neither a .hpp nor a .cuh")
        if layer_of(path) not in LAYERS and layer_of(path) != REFERENCE:
            complaints.append(f"is in the unknown layer {layer_of(path)}; name it in LAYERS of layer_order.py")
        complaints += check_form(path, text)
        complaints += check_macros(path, code)
        graph[path] = []
        for kind, target in includes_of(path, code):
            if kind == "bad":
                complaints.append(target)
            elif kind == "system":
                if path.endswith(".hpp") and re.search(r"[./]", target) and target not in INTRINSIC_HEADERS:
                    complaints.append(f"includes <{target}>; a .hpp includes only standard C++ headers")
            else:
                graph[path].append(target)
                complaints += check_order(path, target, files)
                if target.endswith(".inl") and path != TARGETS:
                    complaints.append(f"includes {target}; only {TARGETS} may include an .inl")
                if path.endswith(".hpp") and target.endswith(".cuh"):
                    complaints.append(f"includes {target}; a .hpp must not include a .cuh")
        violations += [f"{path} {complaint}" for complaint in complaints]

    cycle = find_cycle(graph)
    if cycle:
        violations.append("include cycle: " + " -> ".join(cycle))
    if "kvcrumb.hpp" in files:
        seen = set().union(*(reachable(graph, top) for top in TOPS if top in files))
        violations += [f"{path} is not reachable from {', '.join(TOPS)}" for path in files
                       if path.endswith((".hpp", ".inl")) and path not in seen and layer_of(path) not in NOT_IN_UMBRELLA]
    return violations


def self_test():
    """A small tree that obeys, and one planted violation of every rule that must be reported."""
    head = "// SPDX-License-Identifier: Apache-2.0\n//! @file A file.\n#pragma once\n"
    good = {
        "config.hpp": head + "#include <cstdint>\n#define KVCRUMB_API inline\n",
        "numeric/float16.hpp": head + '#include "kvcrumb/config.hpp"\n',
        "codec/affine.hpp": head + '#include "kvcrumb/numeric/float16.hpp"\n',
        "interop/cuda_types.cuh": head + '#include <cuda_fp16.h>\n#include "kvcrumb/numeric/float16.hpp"\n',
        "reference/attend.hpp": head + '#include "kvcrumb/numeric/float16.hpp"\n',
        "kvcrumb.hpp": head + '#include "kvcrumb/codec/affine.hpp"\n',
        "host/targets.hpp": head + '#include <immintrin.h>\n#define KVCRUMB_T\n#include "kvcrumb/host/target/sum.inl"\n',
        "host/target/sum.inl": head.replace("#pragma once\n", ""),
        "host.hpp": head + '#include "kvcrumb/host/targets.hpp"\n',
    }
    plants = [
        ("below", "numeric/float16.hpp", good["numeric/float16.hpp"] + '#include "kvcrumb/codec/affine.hpp"\n'),
        ("below", "config.hpp", good["config.hpp"] + "#include <kvcrumb/numeric/float16.hpp>\n"),
        ("must not include a .cuh", "kvcrumb.hpp", good["kvcrumb.hpp"] + '#include "kvcrumb/interop/cuda_types.cuh"\n'),
        ("only standard C++ headers", "codec/affine.hpp", good["codec/affine.hpp"] + "#include <cuda_runtime.h>\n"),
        ("only standard C++ headers", "codec/affine.hpp", good["codec/affine.hpp"] + "#include <cub/cub.cuh>\n"),
        ("shares nothing", "reference/attend.hpp", good["reference/attend.hpp"] + '#include "kvcrumb/codec/affine.hpp"\n'),
        ("only an umbrella", "codec/affine.hpp", good["codec/affine.hpp"] + '#include "kvcrumb/reference/attend.hpp"\n'),
        ("the limit is 300", "codec/affine.hpp", good["codec/affine.hpp"] + "\n" * LINE_LIMIT),
        ("start with KVCRUMB_", "config.hpp", good["config.hpp"] + "#define API inline\n"),
        ("macros live in", "codec/affine.hpp", good["codec/affine.hpp"] + "#  define KVCRUMB_AFFINE 1\n"),
        ("asks for __CUDA_ARCH__", "codec/affine.hpp", good["codec/affine.hpp"] + "#if defined(__CUDA_ARCH__)\n#endif\n"),
        ("unknown layer", "tools/x.hpp", head),
        ("neither a .hpp", "codec/affine.txt", head),
        ("outside of host/target/", "codec/affine.inl", head),
        ("only host/targets.hpp", "kvcrumb.hpp", good["kvcrumb.hpp"] + '#include "kvcrumb/host/target/sum.inl"\n'),
        ("does not exist", "codec/affine.hpp", good["codec/affine.hpp"] + '#include "kvcrumb/codec/absent.hpp"\n'),
        ("included as", "codec/affine.hpp", good["codec/affine.hpp"] + '#include "../config.hpp"\n'),
        ("not reachable", "codec/symmetric.hpp", head),
        ("include cycle", "numeric/float16.hpp", head + '#include "kvcrumb/numeric/float16.hpp"\n'),
        ("SPDX", "codec/affine.hpp", good["codec/affine.hpp"].split("\n", 1)[1]),
        ("@file", "codec/affine.hpp", good["codec/affine.hpp"].replace("//! @file", "//")),
        ("#pragma once", "codec/affine.hpp", good["codec/affine.hpp"].replace("#pragma once\n", "")),
    ]

    def violations_of(files):
        with tempfile.TemporaryDirectory() as folder:
            for path, text in files.items():
                file = pathlib.Path(folder, "kvcrumb", path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            return check_tree(folder)

    failures = [f"reported in a tree that obeys: {v}" for v in violations_of(good)]
    for expected, path, text in plants:
        if not any(expected in v for v in violations_of(good | {path: text})):
            failures.append(f"not reported: {expected!r}, planted in {path}")
    print(f"{len(plants)} violations planted")
    return failures


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    problems = self_test() if sys.argv[1] == "--self-test" else check_tree(sys.argv[1])
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem(s)")
    sys.exit(1 if problems else 0)


main()
