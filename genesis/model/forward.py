"""The forward pass in numpy, float32: small enough to check the real engine's answers by eye, and to need no torch.

Same recipe as docs/arithmetic.md, but with numpy's order of summation and keys and values left in float32; so it agrees
closely with the node, not bit for bit.
"""

from __future__ import annotations

import numpy as np

from container import Ternary, Weights
from shape import Shape, tensor_name


class Network:
    """A model that was read from a GGUF file, ready to be asked for logits."""

    def __init__(self, weights: Weights) -> None:
        self.shape = weights.shape
        self._gains = weights.norms | {"output_norm": weights.output_norm}
        self._matrices = weights.matrices
        self._embedding = weights.embedding.astype(np.float32)
        self._cos, self._sin = _rope_tables(weights.shape)

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """Logits after every position of one sequence. [positions] -> [positions, vocabulary]"""
        x = self._embedding[ids]
        for layer in range(self.shape.layers):
            x = x + self._attention(layer, x)
            x = x + self._feed_forward(layer, x)
        return self._normed(x, "output_norm") @ self._embedding.T

    def greedy(self, prompt: list[int], ends: set[int], tokens_max: int) -> list[int]:
        """The likeliest continuation, without a cache: the whole sequence is run again for every token."""
        ids = list(prompt)
        while len(ids) < len(prompt) + tokens_max:
            ids.append(int(self.logits(np.array(ids))[-1].argmax()))
            if ids[-1] in ends:
                break
        return ids[len(prompt):]

    def _attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        shape, positions = self.shape, len(x)
        normed = self._normed(x, tensor_name(layer, "attn_norm"))

        def heads(part: str, count: int) -> np.ndarray:
            flat = self._project(layer, part, normed)
            return flat.reshape(positions, count, shape.head_width).transpose(1, 0, 2)

        q = self._rotated(heads("attn_q", shape.heads))
        # Neighbouring query heads share one key and value head.
        shared = shape.heads // shape.kv_heads
        k = self._rotated(heads("attn_k", shape.kv_heads)).repeat(shared, axis=0)
        v = heads("attn_v", shape.kv_heads).repeat(shared, axis=0)
        scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(shape.head_width))
        future = np.triu(np.ones((positions, positions), bool), 1)
        scores = np.where(future, np.float32(-np.inf), scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = weights @ v / weights.sum(-1, keepdims=True)
        flat = mixed.transpose(1, 0, 2).reshape(positions, shape.width)
        return self._project(layer, "attn_output", self._normed(flat, tensor_name(layer, "attn_sub_norm")))

    def _feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        normed = self._normed(x, tensor_name(layer, "ffn_norm"))
        gate = np.maximum(self._project(layer, "ffn_gate", normed), 0)
        hidden = gate * gate * self._project(layer, "ffn_up", normed)
        return self._project(layer, "ffn_down", self._normed(hidden, tensor_name(layer, "ffn_sub_norm")))

    def _project(self, layer: int, part: str, x: np.ndarray) -> np.ndarray:
        return bit_linear(x, self._matrices[tensor_name(layer, part)])

    def _normed(self, x: np.ndarray, gain: str) -> np.ndarray:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + np.float32(self.shape.norm_eps)) * self._gains[gain]

    def _rotated(self, x: np.ndarray) -> np.ndarray:
        """Rotary positions in half-split pairs. [heads, positions, head_width]"""
        half = self.shape.head_width // 2
        cos, sin = self._cos[:x.shape[1]], self._sin[:x.shape[1]]
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def bit_linear(x: np.ndarray, matrix: Ternary) -> np.ndarray:
    """Activations as int8 per position, times -1, 0 or 1. [positions, inputs] -> [positions, outputs]"""
    k = np.float32(127) / np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-5))
    quantised = np.clip(np.rint(x * k), -128, 127)
    # Whole numbers below 2^24: this float32 product is exact in any order.
    sums = quantised @ matrix.values.T.astype(np.float32)
    return sums * (matrix.scale / k)


def _rope_tables(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    half = shape.head_width // 2
    inverse = shape.rope_theta ** (-2.0 * np.arange(half) / shape.head_width)
    angles = np.outer(np.arange(shape.context), inverse)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
