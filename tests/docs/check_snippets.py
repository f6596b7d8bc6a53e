#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks README.md and docs/*.md against the sources.

usage: check_snippets.py REPOSITORY | --update REPOSITORY | --self-test

  snippet   every C++ block stands behind a line `<!-- snippet: examples/FILE.cpp#NAME -->` and equals, up to indentation,
            the lines between `// example-begin NAME` and `// example-end NAME` of that file, which is compiled and run as
            a test (examples/cuda/FILE.cu under the emulator); a block behind `<!-- not compiled: REASON -->` is exempt
  link      every relative link leads to a file, every anchor to a heading
  example   every examples/*.cpp and examples/cuda/*.cu is named in README.md or docs/
  reach     every page of docs/ can be reached by links from docs/index.md

--update rewrites the blocks that have a snippet line.
"""
import pathlib
import re
import sys
import tempfile
import textwrap

CPP = {"cpp", "c++", "cc", "cxx", "hpp", "h", "cu", "cuda", "cuh"}
COMPILED = re.compile(r"^(examples/[^/]+\.cpp|examples/cuda/[^/]+\.cu|tests/.+\.cpp)$")
SNIPPET = re.compile(r"^<!-- snippet: (\S+?)#(\S+) -->$")
EXEMPT = re.compile(r"^<!-- not compiled: \S.*-->$")
MARKER = re.compile(r"^\s*// example-(begin|end) (\S+)\s*$")
FENCE = re.compile(r"^(\s*)(```+|~~~+)\s*(\S*)")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")


def pages(root):
    return [p for p in [root / "README.md", *sorted((root / "docs").glob("*.md"))] if p.exists()]


def regions(text):
    """The marked regions of a source file: name -> text. Raises ValueError on a marker without its partner."""
    found, open_at = {}, {}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = MARKER.match(line)
        if not match:
            continue
        kind, name = match.groups()
        if kind == "begin":
            if name in open_at or name in found:
                raise ValueError(f"marker {name} begins twice")
            open_at[name] = number
        elif name not in open_at:
            raise ValueError(f"marker {name} ends without a beginning")
        else:
            body = [x for x in lines[open_at.pop(name) + 1:number] if not MARKER.match(x)]
            found[name] = textwrap.dedent("\n".join(body)).strip("\n")
    if open_at:
        raise ValueError(f"marker {min(open_at)} has no end")
    return found


def region_of(root, path, name):
    """Text of a snippet, or a ValueError that says why there is none."""
    if not COMPILED.match(path) or ".." in path:
        raise ValueError(f"{path} is not a compiled example or test")
    if not (root / path).is_file():
        raise ValueError(f"{path} does not exist")
    found = regions((root / path).read_text())
    if name not in found:
        raise ValueError(f"{path} has no marker {name}")
    return found[name]


def blocks(text):
    """Fenced blocks: (line number of the fence, language, body lines, last line before it that is not blank)."""
    lines, number, before = text.splitlines(), 0, ""
    while number < len(lines):
        match = FENCE.match(lines[number])
        if not match:
            before = lines[number].strip() or before
            number += 1
            continue
        start, fence = number, match.group(2)
        number += 1
        while number < len(lines) and not lines[number].strip().startswith(fence):
            number += 1
        yield start, match.group(3).lower(), lines[start + 1:number], before
        before = ""
        number += 1


def prose(text):
    """The page without fenced blocks and code spans, with line numbers kept."""
    lines = text.splitlines()
    for start, _, body, _ in blocks(text):
        for number in range(start, min(start + len(body) + 2, len(lines))):
            lines[number] = ""
    return [re.sub(r"`[^`]*`", "", line) for line in lines]


def anchors(text):
    """Anchors of the headings, as GitHub makes them."""
    inside = set()
    for start, _, body, _ in blocks(text):
        inside.update(range(start, start + len(body) + 2))
    result, seen = set(), {}
    for number, line in enumerate(text.splitlines()):
        match = re.match(r"^#{1,6}\s+(.*?)\s*#*$", line)
        if not match or number in inside:
            continue
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match.group(1)).lower()
        slug = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
        result.add(slug if seen[slug] == 0 else f"{slug}-{seen[slug]}")
    return result


def links(page):
    """(line number, target without anchor, anchor) of the relative links of a page."""
    for number, line in enumerate(prose(page.read_text()), 1):
        for target in LINK.findall(line):
            if not re.match(r"^[a-z][a-z0-9+.-]*:", target):
                path, _, anchor = target.partition("#")
                yield number, path, anchor


def check(root):
    root = root.resolve()
    for page in pages(root):
        where = page.relative_to(root)
        for start, language, body, before in blocks(page.read_text()):
            if language not in CPP or EXEMPT.match(before):
                continue
            match = SNIPPET.match(before)
            if not match:
                yield f"{where}:{start + 1}: C++ block without a snippet line"
                continue
            try:
                expected = region_of(root, *match.groups())
            except ValueError as error:
                yield f"{where}:{start + 1}: {error}"
                continue
            if textwrap.dedent("\n".join(body)).strip("\n") != expected:
                yield f"{where}:{start + 1}: block differs from {match.group(1)}#{match.group(2)} (--update rewrites it)"
        for number, path, anchor in links(page):
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or not target.is_relative_to(root):
                yield f"{where}:{number}: link to {path}, which does not exist"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
                yield f"{where}:{number}: link to #{anchor}, but {target.relative_to(root)} has no such heading"

    everything = "\n".join(page.read_text() for page in pages(root))
    examples = root / "examples"
    for example in sorted([*examples.glob("*.cpp"), *examples.glob("cuda/*.cu")]):
        if example.name not in everything:
            yield f"{example.relative_to(root)} is named neither in README.md nor in docs/"
        try:
            regions(example.read_text())
        except ValueError as error:
            yield f"{example.relative_to(root)}: {error}"

    reached, todo = set(), [root / "docs" / "index.md"]
    while todo:
        page = todo.pop()
        if page in reached or not page.is_file() or page.suffix != ".md":
            continue
        reached.add(page)
        todo += [(page.parent / path).resolve() for _, path, _ in links(page) if path]
    for page in sorted((root / "docs").rglob("*.md")):
        if page not in reached:
            yield f"{page.relative_to(root)} cannot be reached from docs/index.md"


def update(root):
    for page in pages(root):
        text = page.read_text()
        lines = text.splitlines()
        for start, language, body, before in reversed(list(blocks(text))):
            match = SNIPPET.match(before)
            if language in CPP and match:
                lines[start + 1:start + 1 + len(body)] = region_of(root, *match.groups()).splitlines()
        page.write_text("\n".join(lines) + "\n")


GOOD = {
    "README.md": "# Name\n\n<!-- snippet: examples/a.cpp#one -->\n```cpp\nint x = 1;\n  int y;\n```\n"
                 "[docs](docs/index.md) [there](docs/b.md#two-words)\n\n```sh\nls [no](link.md)\n```\n",
    "docs/index.md": "# Index\n[b](b.md)\n",
    "docs/b.md": "# B\n## Two words\n<!-- not compiled: only a sketch -->\n```cpp\nanything\n```\n[up](../README.md#name)\n",
    "examples/a.cpp": "void f() {\n  // example-begin one\n  int x = 1;\n    int y;\n  // example-end one\n}\n",
}
# What is changed in one of the files of GOOD, and a part of the complaint that must follow.
VIOLATIONS = [
    ("README.md", ("int x = 1;\n  int y;", "int x = 2;\n  int y;"), "differs from"),
    ("README.md", ("  int y;", "int y;"), "differs from"),
    ("examples/a.cpp", ("int x = 1", "int x = 3"), "differs from"),
    ("README.md", ("<!-- snippet: examples/a.cpp#one -->", ""), "without a snippet line"),
    ("README.md", ("<!-- snippet: examples/a.cpp#one -->\n```cpp", "```c++"), "without a snippet line"),
    ("README.md", ("a.cpp#one", "a.cpp#none"), "no marker none"),
    ("README.md", ("examples/a.cpp#one", "examples/c.cpp#one"), "does not exist"),
    ("README.md", ("examples/a.cpp#one", "docs/b.md#one"), "not a compiled example"),
    ("README.md", ("docs/index.md", "docs/absent.md"), "which does not exist"),
    ("README.md", ("#two-words", "#three-words"), "no such heading"),
    ("README.md", ("[docs](docs/index.md)", "[out](../../../../../../../../etc)"), "which does not exist"),
    ("docs/index.md", ("[b](b.md)", ""), "cannot be reached"),
    ("docs/b.md", ("only a sketch", ""), "without a snippet line"),
    ("examples/a.cpp", ("// example-end one", ""), "has no end"),
    ("examples/b.cpp", ("", "int main() {}\n"), "is named neither"),
    ("examples/cuda/b.cu", ("", "int main() {}\n"), "is named neither"),
]


def self_test():
    failures = 0
    for path, change, complaint in [(None, None, None), *VIOLATIONS]:
        files = dict(GOOD)
        if path:
            old, new = change
            text = files.get(path, "")
            assert old in text, (path, old)
            files[path] = text.replace(old, new) if old else new
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            found = list(check(root))
            good = any(complaint in f for f in found) if complaint else not found
            if good and complaint == "differs from":
                update(root)
                good = not list(check(root))
            if not good:
                failures += 1
                print(f"self-test: {path} {change}: expected {complaint!r}, got {found}")
    print(f"{len(VIOLATIONS)} planted violations, {failures} failures")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) == 2 and arguments[0] == "--update":
        update(pathlib.Path(arguments[1]))
        arguments = arguments[1:]
    if len(arguments) != 1 or not pathlib.Path(arguments[0]).is_dir():
        print(__doc__)
        return 2
    found = list(check(pathlib.Path(arguments[0])))
    print("\n".join(found) if found else "README.md and docs/ agree with the sources")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
