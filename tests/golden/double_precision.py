"""transformers' models computed in FP64 throughout.

`model.double()` is not enough: norms, router softmax, attention softmax and rotary angles are
written in float32 whatever the weights are. Here the modeling source itself is compiled again with
every float32 replaced by float64, which leaves the algorithm as its authors wrote it.
"""

import importlib.util
import sys

import transformers

_REPLACEMENTS = (
    ("torch.float32", "torch.float64"),
    ("dtype=torch.float)", "dtype=torch.float64)"),
    ("dtype=torch.float,", "dtype=torch.float64,"),
    (".float()", ".double()"),
)


def model_class(config):
    """The causal language model class of `config`, with float64 in the place of float32."""
    name = f"transformers.models.{config.model_type}.modeling_{config.model_type}"
    twin = f"{name}_float64"
    if twin not in sys.modules:
        spec = importlib.util.find_spec(name)
        with open(spec.origin, encoding="utf-8") as file:
            source = file.read()
        for old, new in _REPLACEMENTS:
            source = source.replace(old, new)
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(twin, loader=None))
        module.__package__ = name.rpartition(".")[0]
        module.__file__ = spec.origin
        sys.modules[twin] = module
        exec(compile(source, twin, "exec"), module.__dict__)
    return getattr(
        sys.modules[twin], transformers.AutoModelForCausalLM._model_mapping[type(config)].__name__
    )
