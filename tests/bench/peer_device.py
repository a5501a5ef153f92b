#!/usr/bin/env python3
"""What PyTorch reaches on a device: the peers of //tests/bench:layer and //tests/bench:step on a GPU.

    python peer_device.py layer --shape olmoe:2048:1024:64:8 --tokens 32768 --skew 0 --skew 1
    python peer_device.py step --recipe configs/recipes/olmoe_1b_7b.textproto --state bf16
    python peer_device.py check

Prints lines of JSON, the first with the device's limits: the rates of a dense product and of a
copy. `layer` is one layer of experts forward and backward, in BF16 (shapes and drawn experts are
those of the C++ program of that name); `step` are whole training steps with AdamW and clipping, on
random tokens; `check` says whether all ways of computing experts (peer_model.py) agree, in FP32.
What fails, for want of memory say, has an "error" instead of numbers. --device cpu works too, with
small sizes.
"""

import argparse
import gc
import json
import statistics
import sys
import time

import torch
from torch import nn

import peer_model
from peer_model import Dims, MixtureOfExperts, Transformer

ROUND_SECONDS = 0.01  # of calls in a row, so that the wait behind them hardly counts
TOLERANCE = 1e-4


def shape(text):
    """NAME:HIDDEN:EXPERT_HIDDEN:EXPERTS:TOP_K"""
    name, *numbers = text.split(":")
    hidden, expert_hidden, experts, top_k = map(int, numbers)
    return name, Dims(hidden=hidden, expert_hidden=expert_hidden, experts=experts, top_k=top_k)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("layer", "step", "check"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--ways", default="loop,grouped,grouped_sum",
                        type=lambda names: names.split(","), metavar="NAMES",
                        help="of computing experts: some of " + ",".join(peer_model.WAYS))
    parser.add_argument("--compile", action="store_true", help="under torch.compile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", type=shape, action="append", default=[], help=shape.__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--skew", type=float, action="append", default=[])
    parser.add_argument("--recipe", help="whose model and batch `step` takes")
    parser.add_argument("--micro_batch", type=int, help="sequences; without it the recipe's")
    parser.add_argument("--state", choices=("fp32", "bf16"), default="fp32",
                        help="of parameters, gradients and AdamW; products are in BF16 either way")
    return parser.parse_args()


def report(record):
    print(json.dumps(record), flush=True)


class Device:
    def __init__(self, kind):
        self.kind = kind
        self.is_cuda = kind == "cuda"
        if self.is_cuda:
            torch.backends.cuda.matmul.allow_tf32 = False
        self.limits = {"fp32_flops_per_second": self.product_rate(torch.float32),
                       "bf16_flops_per_second": self.product_rate(torch.bfloat16),
                       "bytes_per_second": self.copy_rate(),
                       "source": "torch.mm, Tensor.copy_"}

    def describe(self):
        name = torch.cuda.get_device_name() if self.is_cuda else "CPU"
        return {"device": name, "torch": torch.__version__, "limits": self.limits}

    def seconds(self, call, num_calls):
        """Of a call, the mean of some in a row, from no work to all work done."""
        self.wait()
        start = time.perf_counter()
        for _ in range(num_calls):
            call()
        self.wait()
        return (time.perf_counter() - start) / num_calls

    def rounds(self, call, num_rounds):
        """Sorted seconds of a call in each round, once it has warmed up."""
        self.seconds(call, 2)
        once = self.seconds(call, 1)
        num_calls = min(1000, max(1, int(ROUND_SECONDS / once))) if self.is_cuda else 1
        return sorted(self.seconds(call, num_calls) for _ in range(num_rounds))

    def wait(self):
        if self.is_cuda:
            torch.cuda.synchronize()

    def product_rate(self, dtype):
        n = 8192 if self.is_cuda else 1024
        x, w, y = (torch.randn(n, n, device=self.kind).to(dtype) for _ in range(3))
        return 2 * n**3 / self.rounds(lambda: torch.mm(x, w.T, out=y), 5)[0]

    def copy_rate(self):
        x = torch.randn(1 << (29 if self.is_cuda else 24), device=self.kind)
        y = torch.empty_like(x)
        return 2 * x.nbytes / self.rounds(lambda: y.copy_(x), 5)[0]

    def peak_bytes(self):
        return torch.cuda.max_memory_allocated() if self.is_cuda else None

    def release(self):
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def measured(device, flops, seconds):
    """The numbers of rounds that took so many seconds, sorted."""
    best, median = seconds[0], statistics.median(seconds)
    peak = flops / device.limits["bf16_flops_per_second"]

    def both(of):
        return {"best": of(best), "median": of(median)}

    return {"flops": flops, "milliseconds": both(lambda s: 1e3 * s),
            "tflops_per_second": both(lambda s: flops / s / 1e12),
            "share_of_peak": both(lambda s: peak / s), "peak_bytes": device.peak_bytes()}


def attempt(record, measure):
    """Reports the record with what `measure()` adds, or the error that it ends with."""
    try:
        report({**record, **measure()})
    except Exception as error:  # whatever PyTorch, its compiler and the device raise
        report({**record, "error": f"{type(error).__name__}: {error}".splitlines()[0]})


def experts_module(dims, way, dtype, device):
    name, product = peer_model.grouped_product(dtype, device)
    with torch.device(device):
        return MixtureOfExperts(dims, way, product).to(dtype), name if way != "loop" else way


def draw_experts(dims, tokens, skew, device):
    """[T, K]: expert i with a chance in proportion to 1 / (i + 1)^skew, without repetition."""
    chance = torch.arange(1, dims.experts + 1, device=device, dtype=torch.float32) ** -skew
    return torch.multinomial(chance.expand(tokens, -1), dims.top_k)


def run_layer(module, x, dy, chosen):
    """Forward and backward; gradients stand in x and the module's parameters."""
    for leaf in (x, *module.parameters()):
        leaf.grad = None
    y = module(x, chosen)
    y.backward(dy)
    return y


def measure_layer(device, dims, way, skew, arguments):
    torch.manual_seed(0)  # the same numbers and experts for every way
    module, name = experts_module(dims, way, torch.bfloat16, device.kind)
    if arguments.compile:
        module.compile()
    x, dy = (torch.randn(arguments.tokens, dims.hidden, device=device.kind, dtype=torch.bfloat16)
             for _ in range(2))
    x.requires_grad_()
    chosen = draw_experts(dims, arguments.tokens, skew, device.kind)
    load = torch.bincount(chosen.flatten(), minlength=dims.experts).max().item()
    mean = arguments.tokens * dims.top_k / dims.experts
    return {"product": name, "largest_load_over_mean": load / mean,
            **measured(device, arguments.tokens * dims.layer_flops(),
                       device.rounds(lambda: run_layer(module, x, dy, chosen),
                                     arguments.rounds))}


def layers(device, arguments):
    for name, dims in arguments.shape:
        for skew in arguments.skew or [0]:
            for way in arguments.ways:
                device.release()
                attempt({"shape": name, "tokens": arguments.tokens, "dtype": "BF16", "skew": skew,
                         "way": way, "compiled": arguments.compile},
                        lambda: measure_layer(device, dims, way, skew, arguments))


def measure_step(device, way, arguments):
    dims, batch, micro_batch = Dims.of_recipe(arguments.recipe)
    _, product = peer_model.grouped_product(torch.bfloat16, device.kind)
    with torch.device(device.kind):
        model = Transformer(dims, way, product)
        if arguments.state == "bf16":
            model = model.to(torch.bfloat16)
        tokens = torch.randint(dims.vocabulary, (batch, dims.sequence + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    loss_of = torch.compile(peer_model.loss_of) if arguments.compile else peer_model.loss_of
    micro_batches = tokens.split(arguments.micro_batch or micro_batch)

    def step():
        optimizer.zero_grad()
        for part in micro_batches:
            loss = loss_of(model, part, arguments.state == "fp32")
            (loss / len(micro_batches)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    num_tokens = batch * dims.sequence
    record = measured(device, num_tokens * dims.flops(), device.rounds(step, arguments.rounds))
    rates = {key: 1e3 * num_tokens / value for key, value in record["milliseconds"].items()}
    return {"parameters": sum(p.numel() for p in model.parameters()), "tokens": num_tokens,
            "tokens_per_second": rates, **record}


def steps(device, arguments):
    for way in arguments.ways:
        device.release()
        attempt({"recipe": arguments.recipe, "state": arguments.state, "way": way,
                 "compiled": arguments.compile}, lambda: measure_step(device, way, arguments))


def check(device):
    """Whether all ways have the same outputs and gradients."""
    dims = Dims(hidden=32, expert_hidden=48, experts=8, top_k=2)
    x, dy = (torch.randn(64, dims.hidden, device=device) for _ in range(2))
    x.requires_grad_()
    chosen = draw_experts(dims, 64, 1.0, device)
    expected, agree = None, True
    for way in peer_model.WAYS:
        torch.manual_seed(0)
        module, _ = experts_module(dims, way, torch.float32, device)
        y = run_layer(module, x, dy, chosen)
        found = [y.detach(), x.grad, *(p.grad for p in module.parameters())]
        expected = expected or found
        errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected)]
        agree &= max(errors) < TOLERANCE
        report({"way": way, "largest_error": max(errors)})
    return agree


def main():
    arguments = parse_arguments()
    torch.manual_seed(0)
    if arguments.what == "check":
        return 0 if check(arguments.device) else 1
    device = Device(arguments.device)
    report(device.describe())
    (layers if arguments.what == "layer" else steps)(device, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
