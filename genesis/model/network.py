"""The network as it is trained: full-precision master weights that are ternary, and activations that are int8,
whenever they are used.

The recipe of BitNet-b1.58-2B-4T: absmean ternary weights, per-position absmax int8 activations, norms before the output
projections, squared-ReLU gate, rotary positions, grouped-query attention, embedding shared with the output head.
Attributes are named so that a key of the state dict is the name of the tensor in the GGUF file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from shape import Shape

# Below this a row counts as zero; the same floor as in docs/arithmetic.md, rule R5.
FLOOR = 1e-5
INITIAL_DEVIATION = 0.02


class RmsNorm(nn.Module):
    """Divides by the root mean square and multiplies by a learned gain, in float32 also under autocast."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class BitLinear(nn.Linear):
    """A projection whose weights are `ternarise`d on every use. Its input has been through `quantised`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inverse = 1.0 / self.weight.abs().mean().clamp(min=FLOOR)
        rounded = (self.weight * inverse).round().clamp(-1, 1) / inverse
        return functional.linear(x, _straight_through(rounded, self.weight))


class Block(nn.Module):
    """One layer: attention, then the gated feed-forward part, each added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, inner, kv_width, eps = shape.width, shape.feed_forward, shape.kv_width, shape.norm_eps
        self.shape = shape
        self.attn_norm, self.ffn_norm = RmsNorm(width, eps), RmsNorm(width, eps)
        self.attn_sub_norm, self.ffn_sub_norm = RmsNorm(width, eps), RmsNorm(inner, eps)
        # The order of these lines is the order of the initial draws.
        self.attn_q = BitLinear(width, width)
        self.attn_k = BitLinear(width, kv_width)
        self.attn_v = BitLinear(width, kv_width)
        self.attn_output = BitLinear(width, width)
        self.ffn_gate = BitLinear(width, inner)
        self.ffn_up = BitLinear(width, inner)
        self.ffn_down = BitLinear(inner, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self._attention(quantised(self.attn_norm(x)), cos, sin)
        return x + self._feed_forward(quantised(self.ffn_norm(x)))

    def _attention(self, y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        shape = self.shape
        batch, positions, width = y.shape

        def heads(flat: Tensor, count: int) -> Tensor:
            return flat.view(batch, positions, count, shape.head_width).transpose(1, 2)

        q = _rotated(heads(self.attn_q(y), shape.heads), cos, sin)
        k = _rotated(heads(self.attn_k(y), shape.kv_heads), cos, sin)
        v = heads(self.attn_v(y), shape.kv_heads)
        shared = shape.heads // shape.kv_heads
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        flat = mixed.transpose(1, 2).reshape(batch, positions, width)
        return self.attn_output(quantised(self.attn_sub_norm(flat)))

    def _feed_forward(self, y: Tensor) -> Tensor:
        hidden = functional.relu(self.ffn_gate(y)).square() * self.ffn_up(y)
        return self.ffn_down(quantised(self.ffn_sub_norm(hidden)))


class Network(nn.Module):
    """Token ids in, logits out. [batch, positions] -> [batch, positions, vocabulary]"""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = RmsNorm(shape.width, shape.norm_eps)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=INITIAL_DEVIATION)

    def forward(self, ids: Tensor) -> Tensor:
        cos, sin = _rope_tables(ids.shape[1], self.shape)
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, cos, sin)
        return functional.linear(self.output_norm(x), self.token_embd.weight)


def quantised(x: Tensor) -> Tensor:
    """Rounds to int8 steps of each position's largest value; gradients pass as if it had not."""
    k = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=FLOOR)
    return _straight_through((x * k).round().clamp(-128, 127) / k, x)


def ternarise(master: Tensor) -> tuple[Tensor, float]:
    """Absmean: values in {-1, 0, 1} as int8, and a scale rounded to binary16 so that every container holds the same."""
    mean = master.float().abs().mean().clamp(min=FLOOR)
    values = (master.float() / mean).round().clamp(-1, 1)
    return values.to(torch.int8), mean.half().float().item()


def _straight_through(rounded: Tensor, exact: Tensor) -> Tensor:
    return exact + (rounded - exact).detach()


def _rope_tables(positions: int, shape: Shape) -> tuple[Tensor, Tensor]:
    steps = torch.arange(0, shape.head_width, 2).float() / shape.head_width
    angles = torch.outer(torch.arange(positions).float(), 1.0 / shape.rope_theta**steps)
    both = torch.cat((angles, angles), -1)
    return both.cos(), both.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin
