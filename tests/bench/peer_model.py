"""The mixture-of-experts transformer of the peers in PyTorch: peer_pytorch.py and peer_device.py.

Experts are computed in one of these ways:

    loop         as transformers writes Qwen3-MoE and OLMoE: a loop over the experts that were hit,
                 gathering rows and adding them back with index_add_
    grouped      rows sorted by expert, one grouped product, rows added back with index_add_
    grouped_sum  the same as transformers does it under `experts_implementation="grouped_mm"`: rows
                 put back in the order of tokens, and each token's summed
"""

import dataclasses
import re

import torch
from torch import nn
from torch.nn import functional as F

WAYS = ("loop", "grouped", "grouped_sum")
BYTES = 257  # tokens of a recipe that names no vocabulary


@dataclasses.dataclass(frozen=True)
class Dims:
    """The sizes of a model or, with those of attention left out, of a layer of experts."""

    hidden: int
    expert_hidden: int
    experts: int
    top_k: int
    layers: int = 1
    heads: int = 1
    head_dim: int = 0
    vocabulary: int = 0
    sequence: int = 0
    qk_norm: bool = False  # of the whole projections, as OLMoE has it

    @staticmethod
    def of_recipe(path):
        """Those of a recipe in configs/recipes, with its batch: (Dims, sequences, micro-batch)."""
        with open(path, encoding="utf-8") as file:
            text = re.sub(r"#.*", "", file.read())
        number = {name: int(value) for name, value in re.findall(r"(\w+): (\d+)\b", text)}
        dims = Dims(hidden=number["hidden_size"], expert_hidden=number["expert_hidden_size"],
                    experts=number["num_experts"], top_k=number["top_k"],
                    layers=number["num_layers"], heads=number["num_heads"],
                    head_dim=number["hidden_size"] // number["num_heads"],
                    vocabulary=number.get("vocab_size", BYTES), sequence=number["sequence_length"],
                    qk_norm="qk_norm: WHOLE" in text)
        return dims, number["global_batch_size"], number["micro_batch_size"]

    def layer_flops(self):
        """Forward and backward of a token in a layer of experts, over the weights it meets."""
        return 3 * (6 * self.hidden * self.expert_hidden * self.top_k
                    + 2 * self.hidden * self.experts)

    def flops(self):
        """The same of the whole model, with the causal half of attention."""
        width = self.heads * self.head_dim
        attention = 3 * (8 * self.hidden * width + 2 * self.sequence * width)
        return (self.layers * (attention + self.layer_flops())
                + 3 * 2 * self.hidden * self.vocabulary)


def grouped_product(dtype, device="cpu"):
    """(name, product) with product(rows, weights [e, N, K], ends [e]) -> rows of N.

    PyTorch's own, if it runs forward and backward in this dtype on the device.
    """

    def slices(rows, weights, ends):
        begins = [0, *ends.tolist()]
        return torch.cat([
            rows[begin:end] @ w.T for begin, end, w in zip(begins, begins[1:], weights.unbind())])

    for name, owner in (("torch.nn.functional.grouped_mm", F), ("torch._grouped_mm", torch)):
        product = getattr(owner, name.rpartition(".")[2], None)
        try:
            rows, weights = (torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
                             for shape in ((8, 16), (2, 16, 16)))
            ends = torch.tensor([3, 8], dtype=torch.int32, device=device)
            product(rows, weights.transpose(1, 2), offs=ends).sum().backward()
            weights.grad.sum().item()  # once the device has done it
        except (RuntimeError, TypeError, NotImplementedError):
            continue
        return name, lambda rows, weights, ends, of=product: of(
            rows, weights.transpose(1, 2), offs=ends)
    return "a product for each expert's slice", slices


class MixtureOfExperts(nn.Module):
    def __init__(self, dims, way, product=None):
        super().__init__()
        self.dims, self.way, self.product = dims, way, product
        self.router = nn.Linear(dims.hidden, dims.experts, bias=False)
        self.gate_up = nn.Parameter(
            0.02 * torch.randn(dims.experts, 2 * dims.expert_hidden, dims.hidden))
        self.down = nn.Parameter(0.02 * torch.randn(dims.experts, dims.hidden, dims.expert_hidden))

    def forward(self, x, chosen=None):
        """x [..., D]; `chosen` [T, K] overrules the router's choice, not its weights."""
        shape = x.shape
        x = x.reshape(-1, self.dims.hidden)
        scores = self.router(x).float().softmax(dim=-1)
        weights, own = scores.topk(self.dims.top_k, dim=-1)
        if chosen is None:
            chosen = own
        else:
            weights = scores.gather(-1, chosen)
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(x.dtype)
        return getattr(self, self.way)(x, weights, chosen).view(shape)

    def loop(self, x, weights, chosen):
        y = torch.zeros_like(x)
        with torch.no_grad():
            mask = F.one_hot(chosen, self.dims.experts).permute(2, 1, 0)
            hit = mask.sum(dim=(-1, -2)).nonzero()
        for expert in hit:
            expert = expert[0]
            position, token = torch.where(mask[expert])
            gate, up = F.linear(x[token], self.gate_up[expert]).chunk(2, dim=-1)
            rows = F.linear(F.silu(gate) * up, self.down[expert])
            y.index_add_(0, token, (rows * weights[token, position, None]).to(y.dtype))
        return y

    def rows_of_experts(self, x, weights, chosen):
        """(what experts make of their rows, weighted; the order of the pairs in which they are)"""
        expert, order = chosen.flatten().sort(stable=True)
        ends = torch.bincount(expert, minlength=self.dims.experts).cumsum(0).to(torch.int32)
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
        rows = self.product(x[order // self.dims.top_k].to(dtype), self.gate_up.to(dtype), ends)
        gate, up = rows.chunk(2, dim=-1)
        rows = self.product(F.silu(gate) * up, self.down.to(dtype), ends)
        return rows * weights.flatten()[order, None], order

    def grouped(self, x, weights, chosen):
        rows, order = self.rows_of_experts(x, weights, chosen)
        return torch.zeros_like(x).index_add_(0, order // self.dims.top_k, rows.to(x.dtype))

    def grouped_sum(self, x, weights, chosen):
        rows, order = self.rows_of_experts(x, weights, chosen)
        rows = rows[order.argsort()].view(-1, self.dims.top_k, self.dims.hidden)
        return rows.sum(dim=1).to(x.dtype)


def rotate_half(x):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Attention(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.dims, width = dims, dims.heads * dims.head_dim
        self.q, self.k, self.v = (nn.Linear(dims.hidden, width, bias=False) for _ in range(3))
        self.o = nn.Linear(width, dims.hidden, bias=False)
        self.q_norm, self.k_norm = (
            nn.RMSNorm(width) if dims.qk_norm else nn.Identity() for _ in range(2))

    def forward(self, x, cos, sin):
        batch, sequence, _ = x.shape
        q, k, v = (
            u.view(batch, sequence, self.dims.heads, self.dims.head_dim).transpose(1, 2)
            for u in (self.q_norm(self.q(x)), self.k_norm(self.k(x)), self.v(x)))
        q, k = (u * cos + rotate_half(u) * sin for u in (q, k))
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(batch, sequence, -1))


class Block(nn.Module):
    def __init__(self, dims, way, product):
        super().__init__()
        self.attention_norm, self.moe_norm = nn.RMSNorm(dims.hidden), nn.RMSNorm(dims.hidden)
        self.attention, self.moe = Attention(dims), MixtureOfExperts(dims, way, product)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.moe(self.moe_norm(x))


class Transformer(nn.Module):
    def __init__(self, dims, way, product=None):
        super().__init__()
        self.embedding = nn.Embedding(dims.vocabulary, dims.hidden)
        self.blocks = nn.ModuleList(Block(dims, way, product) for _ in range(dims.layers))
        self.norm = nn.RMSNorm(dims.hidden)
        self.head = nn.Linear(dims.hidden, dims.vocabulary, bias=False)
        frequencies = 10000.0 ** (-torch.arange(0, dims.head_dim, 2) / dims.head_dim)
        angles = torch.outer(torch.arange(dims.sequence), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


def loss_of(model, tokens, autocast):
    """Of tokens [B, S + 1]: mean cross-entropy; products in BF16 under `autocast`."""
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=autocast):
        logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
