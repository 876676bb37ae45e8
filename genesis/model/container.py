"""GGUF files of aria-tiny, written and read: ternary matrices as value x scale in binary16, or packed in 2 bits.

Both packings of the same weights decode to the same numbers, because the scale of a matrix is itself a binary16.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from tokenizers import Tokenizer

from shape import NORMS, PROJECTIONS, Shape, tensor_name
from tokenizer import BEGIN_OF_TEXT, CONTROL_TOKENS, END_OF_TURN, token_id, tokenizer_of

ARCHITECTURE = "bitnet-b1.58"
DESCRIPTION = (
    "Tiny BitNet b1.58 chat model trained for the aria node: public-domain stories and synthetic dialogues"
)
# `Role: content<end of turn>` for every message, begin-of-text first, then the invitation to answer.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
# `general.file_type` 1, "mostly F16", in both packings: readers go by the type of each tensor.
FILE_TYPE = 1


class Packing(Enum):
    """How ternary matrices lie in the file."""

    F16 = GGMLQuantizationType.F16
    TQ2_0 = GGMLQuantizationType.TQ2_0


@dataclass(frozen=True)
class Ternary:
    """A matrix `values x scale`: values int8 in {-1, 0, 1}, [outputs, inputs]; scale exact in binary16."""

    values: np.ndarray
    scale: np.float32

    def __post_init__(self) -> None:
        if np.float32(np.float16(self.scale)) != self.scale or self.scale <= 0:
            raise ValueError(f"the scale {self.scale} is not a positive binary16")
        if not np.isin(self.values, (-1, 0, 1)).all():
            raise ValueError("a ternary matrix holds other values than -1, 0 and 1")

    def widened(self) -> np.ndarray:
        return self.values.astype(np.float32) * self.scale


@dataclass(frozen=True)
class Weights:
    """All that a reader needs: shape, tokenizer and tensors under their GGUF names."""

    shape: Shape
    tokenizer: Tokenizer
    embedding: np.ndarray  # [vocabulary, width] float16, also the output head
    output_norm: np.ndarray  # [width] float32
    norms: dict[str, np.ndarray]  # float32
    matrices: dict[str, Ternary]


def write_gguf(path: Path, weights: Weights, packing: Packing) -> None:
    """Writes one file. The same weights and packing give the same bytes."""
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    _write_shape(writer, weights.shape)
    _write_tokenizer(writer, weights.tokenizer, weights.shape)
    writer.add_tensor("token_embd.weight", weights.embedding)
    writer.add_tensor("output_norm.weight", weights.output_norm)
    for layer in range(weights.shape.layers):
        for part in PROJECTIONS:
            name = tensor_name(layer, part)
            widened = weights.matrices[name].widened()
            if packing is Packing.F16:
                writer.add_tensor(name, widened.astype(np.float16))
            else:
                packed = gguf.quants.quantize(widened, packing.value)
                writer.add_tensor(name, packed, raw_dtype=packing.value)
        for part in NORMS:
            name = tensor_name(layer, part)
            writer.add_tensor(name, weights.norms[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path) -> Weights:
    """Reads a file that `write_gguf` wrote, or another packer's F16, TQ1_0 or TQ2_0 version of it."""
    reader = gguf.GGUFReader(path)
    shape = _read_shape(reader)
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def floats(name: str) -> np.ndarray:
        tensor = tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type)

    layers = range(shape.layers)
    return Weights(
        shape=shape,
        tokenizer=tokenizer_of(
            _value(reader, "tokenizer.ggml.tokens"),
            _value(reader, "tokenizer.ggml.merges"),
        ),
        embedding=np.array(tensors["token_embd.weight"].data, np.float16),
        output_norm=floats("output_norm.weight"),
        norms={name: floats(name) for layer in layers for name in (tensor_name(layer, part) for part in NORMS)},
        matrices={
            name: _ternary(name, floats(name))
            for layer in layers
            for name in (tensor_name(layer, part) for part in PROJECTIONS)
        },
    )


def _ternary(name: str, widened: np.ndarray) -> Ternary:
    scale = np.float32(np.abs(widened).max())
    values = np.sign(widened).astype(np.int8)
    if not np.array_equal(values * scale, widened):
        raise ValueError(f"{name}: more than one magnitude, so not a ternary matrix")
    return Ternary(values, scale)


def _write_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("aria-tiny")
    writer.add_description(DESCRIPTION)
    writer.add_license("mit")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(FILE_TYPE)


def _read_shape(reader: gguf.GGUFReader) -> Shape:
    def number(key: str) -> Any:
        return _value(reader, f"{ARCHITECTURE}.{key}")

    return Shape(
        vocabulary=number("vocab_size"),
        width=number("embedding_length"),
        feed_forward=number("feed_forward_length"),
        layers=number("block_count"),
        heads=number("attention.head_count"),
        kv_heads=number("attention.head_count_kv"),
        context=number("context_length"),
        rope_theta=number("rope.freq_base"),
        norm_eps=number("attention.layer_norm_rms_epsilon"),
    )


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, shape: Shape) -> None:
    token_of = {at: token for token, at in tokenizer.get_vocab().items()}
    control = {token_id(tokenizer, token) for token in CONTROL_TOKENS}
    ids = range(shape.vocabulary)
    if sorted(token_of) != list(ids):
        raise ValueError(f"the tokenizer has {len(token_of)} tokens, the model {shape.vocabulary}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([token_of[at] for at in ids])
    writer.add_token_types([gguf.TokenType.CONTROL if at in control else gguf.TokenType.NORMAL for at in ids])
    writer.add_token_merges(merges_of(tokenizer))
    writer.add_bos_token_id(token_id(tokenizer, BEGIN_OF_TEXT))
    # A turn ends the answer of a chat model, so it is the end token of the file as well.
    writer.add_eos_token_id(token_id(tokenizer, END_OF_TURN))
    writer.add_eot_token_id(token_id(tokenizer, END_OF_TURN))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def merges_of(tokenizer: Tokenizer) -> list[str]:
    """The merges in order, each as `left right`. The library's JSON has had both forms."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise ValueError(f"the file has no key {key}")
    return field.contents()
