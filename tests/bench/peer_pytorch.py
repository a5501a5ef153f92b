#!/usr/bin/env python3
"""Tokens per second of the reference step in PyTorch on the CPU, and Moebius beside it.

    python peer_pytorch.py [--dtype FP32|BF16|both] [--variants loop,grouped,...] [--threads 2]
                           [--steps 10] [--rounds 1] [--moebius bazel-bin/moebius] [--check]

The reference step: hidden 256, 4 layers, 4 heads of 64, 8 experts of 512 (SwiGLU), 2 chosen per
token and renormalised, vocabulary 8192, untied head, 8 sequences of 256 tokens, AdamW, clipping at
1. Attention is PyTorch's scaled_dot_product_attention; BF16 is autocast, AdamW the fused one.
Variants of the experts:

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

HIDDEN, LAYERS, HEADS, HEAD_DIM = 256, 4, 4, 64
EXPERTS, TOP_K, EXPERT_HIDDEN, VOCABULARY = 8, 2, 512, 8192
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


def grouped_product(torch, dtype):
    """(name, product) with product(rows, weights [e, N, K], ends [e]) -> rows of N.

    PyTorch's own, if it runs forward and backward in this dtype on the CPU.
    """

    def slices(rows, weights, ends):
        begins = [0, *ends.tolist()]
        return torch.cat([
            rows[begin:end] @ w.T for begin, end, w in zip(begins, begins[1:], weights.unbind())])

    for name, owner in (("torch.nn.functional.grouped_mm", torch.nn.functional),
                        ("torch._grouped_mm", torch)):
        product = getattr(owner, name.rpartition(".")[2], None)
        try:
            rows, weights = (torch.zeros(shape, dtype=dtype, requires_grad=True)
                             for shape in ((8, 16), (2, 16, 16)))
            ends = torch.tensor([3, 8], dtype=torch.int32)
            product(rows, weights.transpose(1, 2), offs=ends).sum().backward()
        except (RuntimeError, TypeError, NotImplementedError):
            continue
        return name, lambda rows, weights, ends, of=product: of(
            rows, weights.transpose(1, 2), offs=ends)
    return "a product for each expert's slice", slices


def build_model(torch, product=None):
    """The model, defined here so that threads are pinned before torch is loaded.

    `product` of rows grouped by expert; without one, a loop over experts.
    """
    nn, F = torch.nn, torch.nn.functional

    def rotate_half(x):
        first, second = x.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (
                nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False) for _ in range(3)
            )
            self.o = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)

        def forward(self, x, cos, sin):
            q, k, v = (
                linear(x).view(BATCH, SEQUENCE, HEADS, HEAD_DIM).transpose(1, 2)
                for linear in (self.q, self.k, self.v)
            )
            q, k = (u * cos + rotate_half(u) * sin for u in (q, k))
            y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
            return self.o(y.transpose(1, 2).reshape(BATCH, SEQUENCE, HEADS * HEAD_DIM))

    class MixtureOfExperts(nn.Module):
        def __init__(self):
            super().__init__()
            self.router = nn.Linear(HIDDEN, EXPERTS, bias=False)
            self.gate_up = nn.Parameter(0.02 * torch.randn(EXPERTS, 2 * EXPERT_HIDDEN, HIDDEN))
            self.down = nn.Parameter(0.02 * torch.randn(EXPERTS, HIDDEN, EXPERT_HIDDEN))

        def forward(self, x):
            x = x.view(-1, HIDDEN)
            weights, chosen = self.router(x).float().softmax(dim=-1).topk(TOP_K, dim=-1)
            weights = weights / weights.sum(dim=-1, keepdim=True)
            experts = self.loop if product is None else self.grouped
            return experts(x, weights, chosen).view(BATCH, SEQUENCE, HIDDEN)

        def loop(self, x, weights, chosen):
            y = torch.zeros_like(x)
            with torch.no_grad():
                mask = F.one_hot(chosen, EXPERTS).permute(2, 1, 0)
                hit = mask.sum(dim=(-1, -2)).nonzero()
            for expert in hit:
                expert = expert[0]
                position, token = torch.where(mask[expert])
                gate, up = F.linear(x[token], self.gate_up[expert]).chunk(2, dim=-1)
                rows = F.linear(F.silu(gate) * up, self.down[expert])
                y.index_add_(0, token, (rows * weights[token, position, None]).to(y.dtype))
            return y

        def grouped(self, x, weights, chosen):
            expert, order = chosen.flatten().sort(stable=True)
            token = order // TOP_K
            ends = torch.bincount(expert, minlength=EXPERTS).cumsum(0).to(torch.int32)
            autocast = torch.is_autocast_enabled("cpu")
            dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
            rows = product(x[token].to(dtype), self.gate_up.to(dtype), ends)
            gate, up = rows.chunk(2, dim=-1)
            rows = product(F.silu(gate) * up, self.down.to(dtype), ends)
            weighted = rows * weights.flatten()[order, None]
            return torch.zeros_like(x).index_add_(0, token, weighted.to(x.dtype))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.moe_norm = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)
            self.attention, self.moe = Attention(), MixtureOfExperts()

        def forward(self, x, cos, sin):
            x = x + self.attention(self.attention_norm(x), cos, sin)
            return x + self.moe(self.moe_norm(x))

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.RMSNorm(HIDDEN)
            self.head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
            frequencies = 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
            angles = torch.outer(torch.arange(SEQUENCE), frequencies).repeat(1, 2)
            self.register_buffer("cos", angles.cos())
            self.register_buffer("sin", angles.sin())

        def forward(self, tokens):
            x = self.embedding(tokens)
            for block in self.blocks:
                x = block(x, self.cos, self.sin)
            return self.head(self.norm(x))

    return Transformer()


class PyTorchPeer:
    """Training steps of one variant in this process; the model trains on from round to round."""

    def __init__(self, variant, dtype):
        import torch

        torch.manual_seed(0)
        self.torch, self.dtype = torch, dtype
        self.variant, self.compiled = variant, variant.endswith("_compiled")
        self.experts, product = "a loop over the experts that were hit", None
        if variant.startswith("grouped"):
            operand = torch.bfloat16 if dtype == "BF16" else torch.float32
            self.experts, product = grouped_product(torch, operand)
        self.model = build_model(torch, product)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.tokens = torch.Generator().manual_seed(0)
        self.loss = torch.compile(self.loss_of) if self.compiled else self.loss_of
        self.seconds, self.error, self.warm = [], None, False

    def loss_of(self, tokens):
        torch = self.torch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "BF16"):
            logits = self.model(tokens[:, :-1])
        labels = tokens[:, 1:].flatten()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels)

    def step(self):
        """Seconds, loss, and the norm of the gradient."""
        torch = self.torch
        tokens = torch.randint(VOCABULARY, (BATCH, SEQUENCE + 1), generator=self.tokens)
        start = time.perf_counter()
        loss = self.loss(tokens)
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
