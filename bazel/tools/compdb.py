#!/usr/bin/env python3
"""Writes compile_commands.json of the tree, for clangd and clang-tidy.

usage: compdb.py [BAZEL OPTION...]      for instance --config=asan; use the options of your builds
"""

import json
import subprocess
import sys

# Flags of gcc that clang does not know.
_GCC_ONLY = {"-fno-canonical-system-headers", "-Wunused-but-set-parameter", "-Wno-free-nonheap-object"}


def _bazel(*arguments):
    result = subprocess.run(["bazel", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"compdb: bazel {arguments[0]} failed:\n{result.stderr}")
    return result.stdout


def main():
    options = sys.argv[1:]
    workspace = _bazel("info", "workspace").strip()
    folder = _bazel("info", "execution_root", *options).strip()
    answer = _bazel("aquery", 'mnemonic("CppCompile", //...)', "--output=jsonproto", "--include_artifacts=false", *options)
    entries = {}
    for action in json.loads(answer).get("actions", []):
        arguments = action["arguments"]
        source = arguments[arguments.index("-c") + 1]
        is_external = source.startswith("external/")
        if not is_external:
            kept = [argument for argument in arguments if argument not in _GCC_ONLY]
            entries[source] = {"directory": folder, "file": source, "arguments": kept}
    with open(workspace + "/compile_commands.json", "w") as file:
        json.dump([entries[source] for source in sorted(entries)], file, indent=1)
    print(f"compdb: {len(entries)} sources in compile_commands.json")


if __name__ == "__main__":
    main()
