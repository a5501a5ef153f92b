#!/usr/bin/env python3
"""Tokens per second of the reference step in eager PyTorch on the CPU, and Moebius beside it.

    python peer_pytorch.py [--dtype FP32|BF16|both] [--threads 2] [--steps 10] [--rounds 1]
                           [--moebius bazel-bin/moebius]

The reference step: hidden 256, 4 layers, 4 heads of 64, 8 experts of 512 (SwiGLU), 2 chosen per
token and renormalised, vocabulary 8192, untied head, 8 sequences of 256 tokens, AdamW, clipping at
1. The model is written as transformers writes Qwen3-MoE: a loop over the experts that were hit,
gathering rows and adding them back with index_add_; attention is PyTorch's
scaled_dot_product_attention; BF16 is autocast, AdamW the fused one. Prints one line of JSON per
dtype. With --moebius that binary trains the same recipe, in turn with PyTorch in every round;
"ratio" is Moebius' tokens per second over PyTorch's.
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
WARM_UP_STEPS = 3

HIDDEN, LAYERS, HEADS, HEAD_DIM = 256, 4, 4, 64
EXPERTS, TOP_K, EXPERT_HIDDEN, VOCABULARY = 8, 2, 512, 8192
BATCH, SEQUENCE = 8, 256


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("FP32", "BF16", "both"), default="both")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--moebius", help="the binary to run beside PyTorch")
    return parser.parse_args()


def pin(threads):
    """Binds this process and its OpenMP threads to the first `threads` CPUs, and returns these."""
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cpus)
    os.environ.update(OMP_NUM_THREADS=str(threads), OMP_PROC_BIND="true")
    return cpus


def build_model(torch):
    """The model, defined here so that threads are pinned before torch is loaded."""
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
            return y.view(BATCH, SEQUENCE, HIDDEN)

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
    """Seconds of single training steps in this process; the model trains on from round to round."""

    def __init__(self, dtype, threads):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch, self.dtype = torch, dtype
        self.model = build_model(torch)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)

    def step(self):
        torch = self.torch
        tokens = torch.randint(VOCABULARY, (BATCH, SEQUENCE + 1))
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "BF16"):
            logits = self.model(tokens[:, :-1])
        labels = tokens[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return time.perf_counter() - start

    def run(self, steps):
        return [self.step() for _ in range(WARM_UP_STEPS + steps)][WARM_UP_STEPS:]


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


def measure(dtype, arguments, cpus):
    peer = PyTorchPeer(dtype, arguments.threads)
    theirs, ours = [], []
    for _ in range(arguments.rounds):
        theirs += peer.run(arguments.steps)
        if arguments.moebius:
            ours += run_moebius(arguments.moebius, dtype, arguments.steps, cpus)
    result = {
        "dtype": dtype,
        "threads": arguments.threads,
        "parameters": sum(p.numel() for p in peer.model.parameters()),
        "torch": peer.torch.__version__,
        "pytorch_tokens_per_second": summary(theirs),
    }
    if ours:
        result["moebius_tokens_per_second"] = summary(ours)
        result["ratio"] = {
            key: round(summary(ours)[key] / summary(theirs)[key], 3) for key in ("best", "median")
        }
    return result


def main():
    arguments = parse_arguments()
    cpus = pin(arguments.threads)
    for dtype in ("FP32", "BF16") if arguments.dtype == "both" else (arguments.dtype,):
        print(json.dumps(measure(dtype, arguments, cpus)), flush=True)


if __name__ == "__main__":
    main()
