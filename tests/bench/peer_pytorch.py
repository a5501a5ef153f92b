#!/usr/bin/env python3
"""Tokens per second of the reference step in PyTorch on the CPU, and Moebius beside it.

    python peer_pytorch.py [--dtype FP32|BF16|both] [--variants loop,grouped,...] [--threads 2]
                           [--steps 10] [--rounds 1] [--moebius bazel-bin/moebius] [--check]

The reference step: hidden 256, 4 layers, 4 heads of 64, 8 experts of 512 (SwiGLU), 2 chosen per
token and renormalised, vocabulary 8192, untied head, 8 sequences of 256 tokens, AdamW, clipping at
1. Attention is PyTorch's scaled_dot_product_attention; BF16 is autocast, AdamW the fused one.
Variants of the experts (peer_model.py):

    loop             as transformers writes Qwen3-MoE: a loop over the experts that were hit,
                     gathering rows and adding them back with index_add_
    grouped          rows sorted by expert, one grouped product; where PyTorch has none for the
                     dtype, a product for each expert's slice. "experts" says which
    loop_compiled    the same under torch.compile, which needs a C++ compiler; "error" says so
    grouped_compiled where it fails

Prints one line of JSON per dtype. With --moebius that binary trains the same recipe, in turn with
all variants in every round, on the same CPUs; "ratio" is Moebius' tokens per second over each
variant's, and "ratio_to_best" over the fastest one's. --check takes one step of each variant and
fails unless losses and gradient norms agree.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = "configs/recipes/reference_step.textproto"
VARIANTS = ("loop", "grouped", "loop_compiled", "grouped_compiled")
WARM_UP_STEPS = 3
COMPILER_STEPS = 8  # before that: loads vary, and so do the shapes that it compiles for
TOLERANCE = {"FP32": 1e-5, "BF16": 2e-2}  # relative, of losses and gradient norms

BATCH, SEQUENCE = 8, 256


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("FP32", "BF16", "both"), default="both")
    parser.add_argument("--variants", type=variants, default=variants("loop,grouped"), metavar="NAMES",
                        help="one or more of " + ",".join(VARIANTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--moebius", help="the binary to run beside PyTorch")
    parser.add_argument("--check", action="store_true",
                        help="one step of each variant: do they agree?")
    return parser.parse_args()


def variants(names):
    """The variants of a list like "loop,grouped"."""
    chosen = names.split(",")
    for name in chosen:
        if name not in VARIANTS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(VARIANTS)}")
    return chosen


def pin(threads):
    """Binds this process and its OpenMP threads to the first `threads` CPUs, and returns these."""
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cpus)
    os.environ.update(OMP_NUM_THREADS=str(threads), OMP_PROC_BIND="true")
    return cpus


class PyTorchPeer:
    """Training steps of one variant in this process; the model trains on from round to round."""

    def __init__(self, variant, dtype):
        import torch  # after its threads have a place
        import peer_model

        torch.manual_seed(0)
        self.torch, self.dtype = torch, dtype
        self.variant, self.compiled = variant, variant.endswith("_compiled")
        self.experts, product = "a loop over the experts that were hit", None
        if variant.startswith("grouped"):
            operand = torch.bfloat16 if dtype == "BF16" else torch.float32
            self.experts, product = peer_model.grouped_product(operand)
        self.dims, _, _ = peer_model.Dims.of_recipe(ROOT / RECIPE)
        self.model = peer_model.Transformer(self.dims, variant.removesuffix("_compiled"), product)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.tokens = torch.Generator().manual_seed(0)
        loss_of = peer_model.loss_of
        self.loss = torch.compile(loss_of) if self.compiled else loss_of
        self.seconds, self.error, self.warm = [], None, False

    def step(self):
        """Seconds, loss, and the norm of the gradient."""
        torch = self.torch
        tokens = torch.randint(
            self.dims.vocabulary, (BATCH, SEQUENCE + 1), generator=self.tokens)
        start = time.perf_counter()
        loss = self.loss(self.model, tokens, self.dtype == "BF16")
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return time.perf_counter() - start, loss.item(), norm.item()

    def try_step(self):
        """The same; None, and `error` says why, where the compiler fails."""
        try:
            return self.step()
        except Exception as error:  # whatever torch.compile and the C++ compiler raise
            if not self.compiled:
                raise
            self.error = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            return None

    def run(self, steps):
        """Adds the seconds of so many steps."""
        warm_up = WARM_UP_STEPS + (COMPILER_STEPS if self.compiled and not self.warm else 0)
        self.warm = True
        for i in range(warm_up + steps):
            taken = None if self.error else self.try_step()
            if taken and i >= warm_up:
                self.seconds.append(taken[0])

    def result(self):
        if self.error:
            return {"experts": self.experts, "error": self.error}
        return {"experts": self.experts, **summary(self.seconds)}


def run_moebius(binary, dtype, steps, cpus):
    """Seconds of single training steps of the recipe, read from the run's metrics.jsonl."""
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            "run.dir": directory,
            "precision.compute": dtype,
            "train.num_steps": WARM_UP_STEPS + steps,
        }
        overrides = []
        for path, value in settings.items():
            overrides += ["--set", f"{path}={value}"]
        for command in ("prepare", "train"):
            # OpenMP has bound this thread to one CPU; a child would inherit that.
            subprocess.run(
                [os.path.abspath(binary), command, "--config", RECIPE, *overrides],
                cwd=ROOT,
                stdout=sys.stderr,
                check=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            )
        with open(os.path.join(directory, "metrics.jsonl"), encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
    rates = [record["tokens_per_second"] for record in records if "tokens_per_second" in record]
    return [BATCH * SEQUENCE / rate for rate in rates[WARM_UP_STEPS:]]


def summary(seconds):
    tokens = BATCH * SEQUENCE
    return {
        "best": round(tokens / min(seconds), 1),
        "median": round(tokens / statistics.median(seconds), 1),
        "steps": len(seconds),
    }


def ratio(ours, theirs):
    return {key: round(summary(ours)[key] / summary(theirs)[key], 3) for key in ("best", "median")}


def measure(dtype, arguments, cpus):
    peers, ours = [PyTorchPeer(variant, dtype) for variant in arguments.variants], []
    for _ in range(arguments.rounds):
        for peer in peers:
            peer.run(arguments.steps)
        if arguments.moebius:
            ours += run_moebius(arguments.moebius, dtype, arguments.steps, cpus)
    result = {
        "dtype": dtype,
        "threads": arguments.threads,
        "parameters": sum(p.numel() for p in peers[0].model.parameters()),
        "torch": peers[0].torch.__version__,
        "pytorch_tokens_per_second": {peer.variant: peer.result() for peer in peers},
    }
    ran = [peer for peer in peers if not peer.error]
    if ours:
        result["moebius_tokens_per_second"] = summary(ours)
        result["ratio"] = {peer.variant: ratio(ours, peer.seconds) for peer in ran}
    if ours and ran:
        best = min(ran, key=lambda peer: statistics.median(peer.seconds))
        result["ratio_to_best"] = {"variant": best.variant, **ratio(ours, best.seconds)}
    return result


def check(dtype, names):
    """One step of each variant, and whether all of them computed the same."""
    steps, errors = {}, {}
    for variant in names:
        peer = PyTorchPeer(variant, dtype)
        taken = peer.try_step()
        if taken:
            steps[variant] = {"loss": taken[1], "gradient_norm": taken[2]}
        else:
            errors[variant] = peer.error
    first = next(iter(steps.values()), {})
    agree = bool(steps) and all(
        abs(step[key] / value - 1) <= TOLERANCE[dtype]
        for step in steps.values()
        for key, value in first.items()
    )
    return {"dtype": dtype, "agree": agree, "steps": steps, "errors": errors}


def main():
    arguments = parse_arguments()
    cpus = pin(arguments.threads)
    import torch  # after its threads have a place

    torch.set_num_threads(arguments.threads)
    agree = True
    for dtype in ("FP32", "BF16") if arguments.dtype == "both" else (arguments.dtype,):
        if arguments.check:
            result = check(dtype, arguments.variants)
            agree &= result["agree"]
        else:
            result = measure(dtype, arguments, cpus)
        print(json.dumps(result), flush=True)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
