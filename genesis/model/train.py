"""Trains aria-tiny on a CPU.

    python train.py --out build                    # 3,807 steps of 6,144 tokens, as published
    python train.py --out build --minutes 60       # as many steps as fit

Half of every batch are books, half are dialogues. Writes `tokenizer.json` and, every 500 steps and at the end,
`master.pt` with the full-precision weights; `export.py` makes the model file of them.

Data, initial weights and order of batches follow from the seed. Floating-point sums depend on processor, library and
number of threads, so another machine gets a model of the same quality, not of the same bits.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from corpus import CORPUS_FILE, read_corpus
from dialogues import dialogues
from heldout import TRAINER_WINDOWS, WINDOW, Loss, Stream, held_out_streams, mean_loss
from network import Network
from shape import Shape
from tokenizer import encode_books, encode_dialogues, train_tokenizer

TRAINING_DIALOGUES = 60_000
TRAINING_SEED = 0
PUBLISHED_STEPS = 3_807
WARM_UP_STEPS = 100
# The rate falls along half a cosine to this share of its peak.
FINAL_RATE = 0.02
# In the second half weights are no longer pulled to zero: the two-stage schedule of the BitNet papers.
WEIGHT_DECAY = 0.05
REPORT_EVERY = 50
SAVE_EVERY = 500


@dataclass(frozen=True)
class Source:
    """A stream of training tokens and the weight of each token's loss."""

    ids: np.ndarray
    weights: np.ndarray

    def window(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Input ids, target ids and target weights of one random window."""
        start = int(rng.integers(len(self.ids) - WINDOW - 1))
        target = slice(start + 1, start + WINDOW + 1)
        return self.ids[start:start + WINDOW], self.ids[target], self.weights[target]


def draw_batch(books: Source, chat: Source, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Books and dialogues in turn. [size, WINDOW] three times."""
    rows = [(chat if row % 2 else books).window(rng) for row in range(size)]
    inputs, targets, weights = (np.stack(column) for column in zip(*rows, strict=True))
    return (
        torch.from_numpy(inputs.astype(np.int64)),
        torch.from_numpy(targets.astype(np.int64)),
        torch.from_numpy(weights),
    )


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of every target, in float32. [..., vocabulary], [...] -> flat"""
    return functional.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.reshape(-1), reduction="none")


def weighted_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch, each token as heavy as its weight."""
    return (token_losses(logits, targets) * weights.reshape(-1)).sum() / weights.sum()


def held_out(network: Network, streams: tuple[Stream, Stream]) -> tuple[Loss, Loss]:
    """Loss on books and on answers, in float32."""

    def losses(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        logits = network(torch.from_numpy(inputs.astype(np.int64))[None])
        return token_losses(logits, torch.from_numpy(targets.astype(np.int64))[None]).numpy()

    network.eval()
    with torch.no_grad():
        books, answers = (mean_loss(stream, losses, TRAINER_WINDOWS) for stream in streams)
    network.train()
    return books, answers


def optimiser(network: Network, rate: float) -> torch.optim.AdamW:
    """Two groups: matrices, which decay in the first half, and gains, which never do."""
    matrices = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    gains = [parameter for parameter in network.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))


def rate_at(step: int, progress: float) -> float:
    """Share of the peak rate: linear warm-up by steps, then half a cosine by progress in [0, 1]."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def progress_of(arguments: argparse.Namespace) -> Callable[[int], float]:
    """How far a run is, from 0 to 1: by steps, or by the clock when minutes were given."""
    if arguments.minutes is None:
        return lambda step: step / arguments.steps
    started = time.monotonic()
    return lambda _: (time.monotonic() - started) / (60 * arguments.minutes)


def train(arguments: argparse.Namespace) -> None:
    torch.manual_seed(TRAINING_SEED)
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    rng = np.random.default_rng(TRAINING_SEED)
    arguments.out.mkdir(parents=True, exist_ok=True)

    corpus = read_corpus(arguments.corpus)
    pairs = list(dialogues(TRAINING_DIALOGUES, TRAINING_SEED))
    tokenizer = train_tokenizer(corpus, pairs)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    book_ids = encode_books(tokenizer, corpus)
    books = Source(book_ids, np.ones(len(book_ids), np.float32))
    chat = Source(*encode_dialogues(tokenizer, pairs))
    streams = held_out_streams(tokenizer, corpus)
    print(f"books {len(books.ids):,} tokens, dialogues {len(chat.ids):,} tokens", flush=True)

    shape = Shape()
    network = Network(shape)
    print(f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters", flush=True)
    step_network = torch.compile(network) if arguments.compile else network
    adam = optimiser(network, arguments.rate)
    progress = progress_of(arguments)

    step, done = 0, 0.0
    while done < 1.0:
        for group in adam.param_groups:
            group["lr"] = arguments.rate * rate_at(step, done)
        if done > 0.5:
            adam.param_groups[0]["weight_decay"] = 0.0
        inputs, targets, weights = draw_batch(books, chat, arguments.batch, rng)
        # Matrix products in bfloat16; norms, stream, loss and master weights stay in float32.
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = weighted_loss(step_network(inputs), targets, weights)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        step += 1
        done = progress(step)
        if step % REPORT_EVERY == 0:
            print(f"step {step}, {done:.1%}, loss {loss.item():.3f}", flush=True)
        if step % SAVE_EVERY == 0 or done >= 1.0:
            on_books, on_answers = held_out(network, streams)
            print(
                f"held out: books {on_books.per_window:.3f}, answers {on_answers.per_window:.3f} nats per token",
                flush=True,
            )
            checkpoint = {
                "shape": asdict(shape),
                "state": network.state_dict(),
                "steps": step,
                "held_out_nats": [on_books.per_window, on_answers.per_window],
            }
            torch.save(checkpoint, arguments.out / "master.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train aria-tiny.")
    parser.add_argument("--corpus", type=Path, default=CORPUS_FILE)
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--steps", type=int, default=PUBLISHED_STEPS)
    parser.add_argument("--minutes", type=float, help="stop by the clock instead of after --steps")
    parser.add_argument("--batch", type=int, default=24, help="windows of 256 tokens in one step")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="fuse with torch.compile; needs a C++ compiler")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
