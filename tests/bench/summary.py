#!/usr/bin/env python3
"""Tables of what tests/gpu/run_all.sh has measured: summary.py FOLDER, that of its JSON files.

Parity of layouts, layers of experts, steps and ops, ours beside PyTorch's; what was not measured is left out.
"""

import json
import pathlib
import sys


def records(path):
    """The objects of a file: lines of JSON, or one object over many lines; none if it is broken."""
    text = path.read_text(encoding="utf-8")
    try:
        return [json.loads(text)]
    except ValueError:
        pass
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break  # it was stopped here
    return found


def table(title, head, rows):
    if rows:
        print(f"\n{title}\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
        for row in rows:
            print(f"| {' | '.join(map(str, row))} |")


def best_and_median(numbers, digits=2, factor=1):
    return "{best:.{n}f} ({median:.{n}f})".format(
        n=digits, **{key: factor * value for key, value in numbers.items()})


def gib(count):
    return f"{count / 2**30:.1f}" if count else "-"


def limits(of_file):
    rows = []
    for name, found in of_file.items():
        for record in found:
            if "limits" in record:
                at = record["limits"]
                rows.append((name, record.get("device", ""), at["source"],
                             f"{at['bf16_flops_per_second'] / 1e12:.1f}",
                             f"{at['fp32_flops_per_second'] / 1e12:.1f}",
                             f"{at['bytes_per_second'] / 1e9:.0f}"))
    table("Limits, best", ("file", "device", "by", "BF16 TFLOP/s", "FP32 TFLOP/s", "GB/s"), rows)


def numbers(record):
    if "error" in record:
        return (record["error"], "", "", "")
    return (best_and_median(record["milliseconds"]), best_and_median(record["tflops_per_second"], 1),
            best_and_median(record["share_of_peak"], 0, 100), gib(record["peak_bytes"]))


NUMBERS = ("ms, best (median)", "TFLOP/s", "% of the dense peak", "peak GiB")


def layers(of_file):
    rows = []
    for found in of_file.values():
        for record in found:
            if "shape" in record:
                way = record.get("way", "Moebius") + (", compiled" if record.get("compiled") else "")
                rows.append((record["shape"], record["skew"], way,
                             f"{record.get('largest_load_over_mean', 0):.2f}", *numbers(record)))
    rows.sort(key=lambda row: row[:2])
    table("Layers of experts, forward and backward",
          ("layer", "skew", "by", "largest load / mean", *NUMBERS), rows)


def steps(of_file):
    ours = of_file.get("step.json") or of_file.get("step_recompute.json")
    rows, ops = [], []
    for name, found in (("Moebius", ours),
                        ("Moebius, kernel by kernel", of_file.get("step_by_kernel.json")),
                        ("Moebius, moments on the host", of_file.get("step_host.json"))):
        for step in found or ():
            rows.append((name, best_and_median(step["tokens_per_second"], 0),
                         best_and_median(step["mfu"], 1, 100), gib(step["peak_bytes"]["device"])))
    if ours:
        (step,) = ours
        ops = [(op["op"], f"{1e3 * op['seconds']:.2f}", f"{op['flops'] / op['seconds'] / 1e12:.1f}",
                f"{op['bytes'] / op['seconds'] / 1e9:.0f}", f"{100 * op['share_of_limit']:.0f}")
               for op in step["ops"]]
    for by, found in (("moebius plan", of_file.get("plan.json")),
                      ("moebius plan, moments on the host", of_file.get("plan_host.json"))):
        for plan in found or []:
            rows.append((by, f"{plan['step']['tokens_per_second']:.0f}",
                         f"{100 * plan['step']['mfu']:.1f} of the data sheet",
                         gib(plan["peak_bytes"])))
    for found in of_file.values():
        for record in found:
            if "recipe" not in record:
                continue
            way = f"{record['way']}, {record['state']}" + (", compiled" * record["compiled"])
            if "error" in record:
                rows.append((way, record["error"], "", ""))
            else:
                rows.append((way, best_and_median(record["tokens_per_second"], 0),
                             best_and_median(record["share_of_peak"], 1, 100),
                             gib(record["peak_bytes"])))
    table("Steps", ("by", "tokens/s, best (median)", "MFU %", "peak GiB"), rows)
    table("Ops of our step", ("op", "ms", "TFLOP/s", "GB/s", "% of its limit"), ops)


def parity(of_file):
    rows = [(record["precision"], record["cells"], record["failed"], f"{record['worst']:.3g}")
            for name, found in of_file.items() if name.startswith("parity.") for record in found]
    table("Layouts beside one rank", ("precision", "cells", "failed", "worst"), rows)


def benchmarks(of_file):
    rows = []
    for name, found in of_file.items():
        for op in found[0]["benchmarks"] if name.startswith("ops.") and found else ():
            rate = (f"{op['GFLOP/s'] / 1e3:.1f} TFLOP/s" if "GFLOP/s" in op
                    else f"{op.get('GB/s', 0):.0f} GB/s")
            rows.append((op["name"].removesuffix("/real_time"), f"{op['real_time']:.0f}", rate,
                         f"{100 * op.get('best', 0):.0f} ({100 * op.get('share', 0):.0f})"))
    table("Ops", ("op", "us", "mean", "% of its limit, best (mean)"), rows)


def main():
    of_file = {path.name: records(path) for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json"))}
    for part in (limits, parity, layers, steps, benchmarks):
        part(of_file)


if __name__ == "__main__":
    main()
