#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints unicode_tables.inc: ranges of code points, from Python's own Unicode database.

    python3 make_unicode_tables.py > unicode_tables.inc
"""
import sys
import unicodedata


def ranges(wanted):
    found = []
    for point in range(sys.maxunicode + 1):
        if not wanted(point):
            continue
        if found and found[-1][1] == point - 1:
            found[-1][1] = point
        else:
            found.append([point, point])
    return found


def composes_backwards():
    """Code points that may join with the one before them under NFC."""
    second = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # Hangul vowels and finals
    for point in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(point)).split()
        canonical = len(parts) == 2 and not parts[0].startswith("<")
        if canonical and unicodedata.normalize("NFC", chr(point)) == chr(point):
            second.add(int(parts[1], 16))
    return second


def main():
    backwards = composes_backwards()

    def surrogate(point):
        return 0xD800 <= point <= 0xDFFF

    tables = {
        "letters": lambda p: unicodedata.category(chr(p)).startswith("L"),
        "numbers": lambda p: unicodedata.category(chr(p)).startswith("N"),
        "not_inert": lambda p: not surrogate(p)
        and (unicodedata.combining(chr(p)) != 0 or p in backwards or unicodedata.normalize("NFC", chr(p)) != chr(p)),
    }
    print(f"// Made by make_unicode_tables.py from Unicode {unicodedata.unidata_version}.")
    for name, wanted in tables.items():
        print(f"constexpr code_range {name}[] = {{")
        line = "   "
        for first, last in ranges(wanted):
            item = f" {{0x{first:X}, 0x{last:X}}},"
            if len(line) + len(item) > 110:
                print(line)
                line = "   "
            line += item
        print(line)
        print("};")


if __name__ == "__main__":
    main()
