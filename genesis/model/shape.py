"""The shape of aria-tiny: every number that a reader of its weights must know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Hyper-parameters in the words of docs/arithmetic.md."""

    vocabulary: int = 4096
    width: int = 256
    feed_forward: int = 768
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    context: int = 2048
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ValueError("heads must divide the width, and kv_heads the heads")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_width


# Tensors of one layer as GGUF names them, in the order in which they are stored. The first seven are ternary.
PROJECTIONS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "ffn_norm", "attn_sub_norm", "ffn_sub_norm")


def tensor_name(layer: int, part: str) -> str:
    """`blk.3.attn_q.weight`: the same name in a GGUF file and in the trainer's state dict."""
    return f"blk.{layer}.{part}.weight"
