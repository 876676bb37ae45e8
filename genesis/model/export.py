"""Makes model files of the trainer's weights.

    python export.py build                         # build/master.pt -> build/aria-tiny.gguf, build/aria-tiny-f16.gguf

`aria-tiny.gguf` holds its matrices in 2 bits a weight (TQ2_0) and is what ships with the node. The F16 file holds the
same numbers as value x scale: what other engines' quantisers take as input, and what `reference.py` may be run on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from container import Packing, Ternary, Weights, write_gguf
from network import ternarise
from shape import NORMS, PROJECTIONS, Shape, tensor_name

FILES = {Packing.TQ2_0: "aria-tiny.gguf", Packing.F16: "aria-tiny-f16.gguf"}


def weights_of(build: Path) -> Weights:
    """Reads master weights and tokenizer, and rounds: matrices to ternary, the embedding to binary16."""
    checkpoint = torch.load(build / "master.pt", map_location="cpu", weights_only=True)
    shape, state = Shape(**checkpoint["shape"]), checkpoint["state"]

    def matrix(name: str) -> Ternary:
        values, scale = ternarise(state[name])
        return Ternary(values.numpy(), np.float32(scale))

    layers = range(shape.layers)
    return Weights(
        shape=shape,
        tokenizer=Tokenizer.from_file(str(build / "tokenizer.json")),
        embedding=state["token_embd.weight"].half().numpy(),
        output_norm=state["output_norm.weight"].float().numpy(),
        norms={
            name: state[name].float().numpy()
            for layer in layers
            for name in (tensor_name(layer, part) for part in NORMS)
        },
        matrices={
            name: matrix(name) for layer in layers for name in (tensor_name(layer, part) for part in PROJECTIONS)
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write aria-tiny as GGUF, in 2 bits and in F16.")
    parser.add_argument("build", type=Path, help="folder with master.pt and tokenizer.json; receives the files")
    arguments = parser.parse_args()
    weights = weights_of(arguments.build)
    for packing, name in FILES.items():
        path = arguments.build / name
        write_gguf(path, weights, packing)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
