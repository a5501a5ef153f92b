#!/usr/bin/env python3
"""Loads what `moebius convert --to_hf` wrote and compares transformers' logits with Moebius' own.

    python check_export.py DIR --tokens FILE --logits FILE

FILE is .safetensors (tensors "tokens" [B, S] and "logits" [B, S, V]; one file may hold both) or
.npy. Prints the largest difference relative to the logits' standard deviation; exits 1 above 1e-4,
or when a tensor of the directory is missing, unknown or misshaped for the architecture that its
config.json names.
"""

import argparse
import sys

import numpy
import safetensors.numpy
import torch
import transformers

TOLERANCE = 1e-4


def read_array(path, name):
    array = numpy.load(path) if path.endswith(".npy") else safetensors.numpy.load_file(path)[name]
    return torch.from_numpy(array)


def load_model(directory):
    """The model in FP32, and the names of tensors that did not fit it."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    return model.eval(), [f"{kind}: {names}" for kind, names in report.items() if names]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--logits", required=True)
    arguments = parser.parse_args()

    transformers.utils.logging.disable_progress_bar()
    model, misfits = load_model(arguments.directory)
    tokens = read_array(arguments.tokens, "tokens").long()
    ours = read_array(arguments.logits, "logits").double()
    with torch.no_grad():
        theirs = model(input_ids=tokens).logits.double()
    if misfits or ours.shape != theirs.shape:
        sys.exit(
            "\n".join(misfits)
            or f"logits are {tuple(ours.shape)}, the model gives {tuple(theirs.shape)}"
        )
    difference = ((ours - theirs).abs().max() / theirs.std()).item()
    verdict = "ok" if difference <= TOLERANCE else "TOO LARGE"
    print(f"{arguments.directory}: difference {difference:.2e} of the logits' spread: {verdict}")
    sys.exit(verdict != "ok")


if __name__ == "__main__":
    main()
