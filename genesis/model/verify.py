"""Checks that the published model, its data and this code belong together. No torch, less than a minute.

    python verify.py

Every check prints a line; the first one that fails ends the run with exit code 1 and says what differs.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from pathlib import Path

from ask import Answerer
from container import Packing, merges_of, read_gguf, write_gguf
from corpus import read_corpus
from dialogues import dialogues
from forward import Network
from heldout import TRAINER_WINDOWS, cross_entropy, held_out_streams, mean_loss
from prompts import CONTINUATIONS
from tokenizer import train_tokenizer

# What was published. A new model changes these together with the file, README.md and prompts.py.
MODEL_FILE = Path(__file__).resolve().parent.parent / "aria-tiny.gguf"
MODEL_SHA256 = "2ffa8da1896e5ec521059399840e0c62313383eb32261271bbb8fc5746a86aee"
DIALOGUES_SHA256 = "e7f9a646922db96f3147a7a8e654e7683e2bec59ce148a1bc57b1c1fa32de003"
TRAINING_DIALOGUES = 60_000
PARAMETERS = 5_776_640
# Nats per token by the trainer's measure: books, then answers.
HELD_OUT_NATS = (3.9403, 0.0783)
# Another order of summation moves a loss far less than this; a wrong rule far more.
NATS_TOLERANCE = 0.002


class Mismatch(Exception):
    """Two things that should be equal are not."""


def require(claim: bool, otherwise: str) -> None:
    if not claim:
        raise Mismatch(otherwise)


def check_file() -> str:
    found = hashlib.sha256(MODEL_FILE.read_bytes()).hexdigest()
    require(found == MODEL_SHA256, f"{MODEL_FILE} has SHA-256 {found}, published was {MODEL_SHA256}")
    return found


def check_dialogues() -> str:
    digest = hashlib.sha256()
    for question, answer in dialogues(TRAINING_DIALOGUES):
        digest.update(f"{question}\n{answer}\n".encode("ascii"))
    found = digest.hexdigest()
    require(found == DIALOGUES_SHA256, f"the dialogues have SHA-256 {found}, trained was {DIALOGUES_SHA256}")
    return f"{TRAINING_DIALOGUES:,} pairs"


def check_tokenizer() -> str:
    """Training it again from the books and the dialogues gives the tokenizer of the file."""
    trained = train_tokenizer(read_corpus(), list(dialogues(TRAINING_DIALOGUES)))
    shipped = read_gguf(MODEL_FILE).tokenizer
    require(trained.get_vocab() == shipped.get_vocab(), "the vocabularies differ")
    require(merges_of(trained) == merges_of(shipped), "the merges differ")
    return f"{trained.get_vocab_size():,} tokens, {len(merges_of(trained)):,} merges"


def check_packing() -> str:
    """2 bits -> F16 -> 2 bits gives the shipped file back, byte for byte."""
    weights = read_gguf(MODEL_FILE)
    with tempfile.TemporaryDirectory() as folder:
        wide, packed = Path(folder) / "f16.gguf", Path(folder) / "tq2_0.gguf"
        write_gguf(wide, weights, Packing.F16)
        write_gguf(packed, read_gguf(wide), Packing.TQ2_0)
        require(packed.read_bytes() == MODEL_FILE.read_bytes(), "the repacked file differs from the shipped one")
    ternary = sum(matrix.values.size for matrix in weights.matrices.values())
    floats = weights.embedding.size + weights.output_norm.size + sum(norm.size for norm in weights.norms.values())
    require(ternary + floats == PARAMETERS, f"the file has {ternary + floats:,} parameters, not {PARAMETERS:,}")
    return f"{ternary:,} ternary and {floats:,} other parameters"


def check_answers() -> str:
    answerer = Answerer(read_gguf(MODEL_FILE))
    for prompt, expected in CONTINUATIONS.items():
        found = answerer.continuation(prompt)
        require(found == expected, f"{prompt!r} is continued by {found!r}, published was {expected!r}")
    return f"{len(CONTINUATIONS)} continuations"


def check_losses() -> str:
    weights = read_gguf(MODEL_FILE)
    network = Network(weights)
    found = []
    for stream, published in zip(held_out_streams(weights.tokenizer, read_corpus()), HELD_OUT_NATS, strict=True):
        loss = mean_loss(stream, lambda ids, targets: cross_entropy(network.logits(ids), targets), TRAINER_WINDOWS)
        require(
            abs(loss.per_window - published) < NATS_TOLERANCE,
            f"held-out {stream.name} cost {loss.per_window:.4f} nats per token, published was {published}",
        )
        found.append(f"{stream.name} {loss.per_window:.4f}")
    return ", ".join(found) + " nats per token"


CHECKS = {
    "model file": check_file,
    "dialogues": check_dialogues,
    "tokenizer": check_tokenizer,
    "packing": check_packing,
    "answers": check_answers,
    "held-out loss": check_losses,
}


def main() -> int:
    for name, check in CHECKS.items():
        started = time.monotonic()
        try:
            found = check()
        except (Mismatch, ValueError, OSError) as error:
            print(f"FAILED {name}: {error}")
            return 1
        print(f"ok     {name}: {found} ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
