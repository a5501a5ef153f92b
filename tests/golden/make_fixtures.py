#!/usr/bin/env python3
"""Writes fixtures/: tiny models of transformers with the logits and losses that it computes.

    python make_fixtures.py [CASE ...]

Each case becomes fixtures/CASE/ with
  config.json, model.safetensors   as `save_pretrained` writes them, FP32
  expected.safetensors             tokens [2, 24], their logits (FP32) and logits_fp64;
                                   train_tokens [20, 4, 17]: inputs [:, :, :-1], labels [:, :, 1:]
  expected.json                    optimizer, losses and gradient norms of 20 steps (FP32 and FP64),
                                   the noise between both, the smallest top-k margin, versions
The same versions on the same machine write the same bytes.
"""

import json
import pathlib
import platform
import shutil
import sys
import tempfile

import safetensors.torch
import torch
import transformers

import cases
import double_precision

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"
NUM_STEPS = 20
TOKENS_SHAPE = (2, 24)
TRAIN_TOKENS_SHAPE = (NUM_STEPS, 4, 17)
WEIGHT_STD = 0.5
NORM_NOISE_STD = 0.2
# A seed is kept only if no token's K-th and K+1-th router logit come closer than this in any step:
# rounding in FP32 then cannot send a token to another expert.
SMALLEST_MARGIN = 3e-4
OPTIMIZER = dict(lr=2e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)


def draw_weights(model, generator):
    """Matrices from N(0, WEIGHT_STD), norm weights from N(1, NORM_NOISE_STD), in name order."""
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.copy_(
                noise * WEIGHT_STD if parameter.dim() > 1 else 1 + noise * NORM_NOISE_STD
            )


class MarginWatch:
    """The smallest distance between the K-th and the K+1-th router logit that a model meets."""

    def __init__(self, model):
        self.smallest = float("inf")
        self.top_k = model.config.num_experts_per_tok
        for module in model.modules():
            if type(module).__name__.endswith("TopKRouter"):
                module.register_forward_hook(self._watch)

    def _watch(self, module, inputs, outputs):
        logits = outputs[0].detach().sort(dim=-1, descending=True).values
        margin = (logits[:, self.top_k - 1] - logits[:, self.top_k]).min().item()
        self.smallest = min(self.smallest, margin)


def make_optimizer(model):
    """AdamW, decoupled weight decay on every matrix (embedding included) and on no norm weight."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, foreach=False, **OPTIMIZER)


def train(model, train_tokens):
    """Steps on the mean cross-entropy over all labels: constant lr, no clipping or auxiliary loss."""
    optimizer = make_optimizer(model)
    losses, gradient_norms = [], []
    for tokens in train_tokens:
        logits = model(input_ids=tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        squares = [p.grad.double().square().sum() for p in model.parameters()]
        optimizer.step()
        losses.append(loss.item())
        gradient_norms.append(torch.stack(squares).sum().sqrt().item())
    return losses, gradient_norms


def run(model, tokens, train_tokens):
    """Logits of `tokens`, losses and gradient norms of training, and the smallest margin met."""
    watch = MarginWatch(model)
    with torch.no_grad():
        logits = model(input_ids=tokens).logits
    losses, gradient_norms = train(model, train_tokens)
    return logits, losses, gradient_norms, watch.smallest


def load(model_class, directory, dtype):
    return model_class.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    )


def relative_noise(values, exact):
    return max(abs(v - e) / abs(e) for v, e in zip(values, exact))


def make_case(case, directory):
    config = cases.config_of(case)
    saved_class = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        model = saved_class(config)
        draw_weights(model, generator)
        model.tie_weights()
        tokens = torch.randint(config.vocab_size, TOKENS_SHAPE, generator=generator)
        train_tokens = torch.randint(config.vocab_size, TRAIN_TOKENS_SHAPE, generator=generator)
        model.save_pretrained(directory)
        exact_model = load(double_precision.model_class(config), directory, torch.float64)
        exact_logits, exact_losses, exact_norms, margin = run(exact_model, tokens, train_tokens)
        if margin >= SMALLEST_MARGIN:
            break
    else:
        raise RuntimeError(f"{case}: no seed keeps a top-k margin of {SMALLEST_MARGIN}")

    logits, losses, norms, _ = run(
        load(saved_class, directory, torch.float32), tokens, train_tokens
    )
    spread = exact_logits.std().item()
    safetensors.torch.save_file(
        {
            "tokens": tokens.int(),
            "logits": logits,
            "logits_fp64": exact_logits,
            "train_tokens": train_tokens.int(),
        },
        directory / "expected.safetensors",
    )
    expected = {
        "case": case,
        "seed": seed,
        "optimizer": {"name": "AdamW", **OPTIMIZER, "decayed": "tensors of two or more dimensions"},
        "smallest_top_k_margin": margin,
        "logits_spread": spread,
        "fp32_noise": {
            "logits_over_spread": (logits - exact_logits).abs().max().item() / spread,
            "losses_relative": relative_noise(losses, exact_losses),
            "gradient_norms_relative": relative_noise(norms, exact_norms),
        },
        "losses": losses,
        "losses_fp64": exact_losses,
        "gradient_norms": norms,
        "gradient_norms_fp64": exact_norms,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
        },
    }
    (directory / "expected.json").write_text(
        json.dumps(expected, indent=1) + "\n", encoding="utf-8"
    )
    return expected


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    for case in sys.argv[1:] or cases.CASES:
        with tempfile.TemporaryDirectory() as scratch:
            directory = pathlib.Path(scratch)
            expected = make_case(case, directory)
            (FIXTURES / case).mkdir(parents=True, exist_ok=True)
            for name in (
                "config.json",
                "model.safetensors",
                "expected.safetensors",
                "expected.json",
            ):
                shutil.copyfile(directory / name, FIXTURES / case / name)
        noise, losses = expected["fp32_noise"], expected["losses"]
        print(
            f"{case}: seed {expected['seed']},",
            f"smallest top-k margin {expected['smallest_top_k_margin']:.1e},",
            f"FP32 against FP64: logits {noise['logits_over_spread']:.1e} of their spread,",
            f"losses {noise['losses_relative']:.1e}; losses {losses[0]:.4f} ... {losses[-1]:.4f}",
        )


if __name__ == "__main__":
    main()
