#!/usr/bin/env python3
"""extract.py RULES PACKAGES OUT: unpacked Debian packages to plain text, one file per domain.

RULES is a file of sets/; PACKAGES holds a folder per unpacked package; OUT/<domain>.txt receives
UTF-8 documents, each followed by a line that holds a single form feed. Exact duplicates and
documents of fewer than 20 characters are dropped. Standard library only.
"""
import collections
import gzip
import hashlib
import pathlib
import re
import struct
import sys
import zlib

import roff

MIN_CHARACTERS = 20
SEPARATOR = "\f\n"


def read_text(path):
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def extract_text(path):
    yield read_text(path)


def extract_roff(path):
    yield roff.to_text(read_text(path))


def extract_fortune(path):
    """Quotations between lines that hold a percent sign."""
    yield from re.split(r"(?m)^%\s*$", read_text(path))


def extract_rdata(path):
    """The character vectors of an R lazy-load database: chunks of (size, zlib stream of XDR)."""
    raw = path.read_bytes()
    while raw:
        (size,) = struct.unpack_from(">I", raw)
        stream = zlib.decompressobj()
        value = stream.decompress(raw[4:])
        if len(value) != size:
            raise ValueError("chunk of the wrong size")
        raw = stream.unused_data
        lines = r_character_vector(value)
        if lines:
            yield "\n".join(lines)


def r_character_vector(value):
    """The strings of a serialized R object if it is a character vector, else nothing."""
    string_type, string_vector_type = 9, 16
    assert value[:2] == b"X\n", "not XDR"
    (version,) = struct.unpack_from(">i", value, 2)
    at = 14
    if version >= 3:  # the native encoding's name
        at += 4 + struct.unpack_from(">i", value, at)[0]
    flags, count = struct.unpack_from(">ii", value, at)
    if flags & 0xFF != string_vector_type:
        return []
    at += 8
    lines = []
    for _ in range(count):
        flags, length = struct.unpack_from(">ii", value, at)
        assert flags & 0xFF == string_type, "not a string"
        at += 8
        lines.append(value[at : at + max(length, 0)].decode("utf-8", "replace"))
        at += max(length, 0)
    return lines


EXTRACTORS = {
    "text": extract_text,
    "roff": extract_roff,
    "fortune": extract_fortune,
    "rdata": extract_rdata,
}


def tidy(text):
    """One kind of line end, no control characters, no trailing blanks, no runs of empty lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\u00ad", "")
    text = re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f]", "", text)
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return text.strip("\n") + "\n"


def read_rules(path):
    """(domain, package, extractor, glob, exclude) of each text rule."""
    rules = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fields = [field.strip() for field in line.split("|", 5)]
        if fields[0] != "text":
            continue
        if len(fields) != 6 or fields[3] not in EXTRACTORS:
            sys.exit(f"{path}:{number}: expected text|domain|package|extractor|files|left out, "
                     f"with an extractor of {', '.join(sorted(EXTRACTORS))}")
        rules.append(fields[1:])
    return rules


def documents(rules, packages):
    """(domain, document) of all rules, in a fixed order."""
    for domain, package, extractor, pattern, exclude in rules:
        for path in sorted((packages / package).glob(pattern)):
            name = path.relative_to(packages).as_posix()
            if path.is_symlink() or not path.is_file() or (exclude and re.search(exclude, name)):
                continue
            try:
                for text in EXTRACTORS[extractor](path):
                    yield domain, tidy(text)
            except (ValueError, AssertionError, OSError, zlib.error, struct.error) as error:
                sys.exit(f"{name}: {error}")


def main(rules_path, packages, out):
    rules = read_rules(pathlib.Path(rules_path))
    out = pathlib.Path(out)
    files = {rule[0]: open(out / f"{rule[0]}.txt.tmp", "w", encoding="utf-8") for rule in rules}
    seen = set()
    count = collections.Counter()
    for domain, text in documents(rules, pathlib.Path(packages)):
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        if len(text) < MIN_CHARACTERS or digest in seen:
            continue
        seen.add(digest)
        files[domain].write(text + SEPARATOR)
        count[domain] += 1
    for domain, file in files.items():
        file.close()
        path = out / f"{domain}.txt"
        pathlib.Path(file.name).rename(path)
        print(f"{domain:10s} {count[domain]:7d} documents {path.stat().st_size / 1e6:8.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
