"""The books aria-tiny has read, and the paragraphs that were kept from it.

`children.txt.xz` is one paragraph a line; a line `# Title` opens a book. README.md says where it comes from.
"""

from __future__ import annotations

import hashlib
import lzma
from dataclasses import dataclass
from pathlib import Path

CORPUS_FILE = Path(__file__).resolve().parent / "children.txt.xz"
# Of the text, not of the archive: recompressing must not matter.
CORPUS_SHA256 = "c1db8d9e26749ce1897ce08e22e4c382a1d208dca520af93b3f244c5833671b7"
# Every hundredth paragraph, the first included, is never trained on.
HELD_OUT_EVERY = 100
# Paragraphs that are encoded together and followed by one end-of-text.
DOCUMENT_PARAGRAPHS = 40


@dataclass(frozen=True)
class Corpus:
    """Paragraphs in the order of the file."""

    training: list[str]
    held_out: list[str]

    def documents(self) -> list[str]:
        """Training paragraphs in running groups."""
        starts = range(0, len(self.training), DOCUMENT_PARAGRAPHS)
        return ["\n".join(self.training[start:start + DOCUMENT_PARAGRAPHS]) for start in starts]


def read_corpus(path: Path = CORPUS_FILE) -> Corpus:
    """Reads and splits the books; refuses a text that is not the one the published model was trained on."""
    raw = lzma.decompress(path.read_bytes())
    found = hashlib.sha256(raw).hexdigest()
    if found != CORPUS_SHA256:
        raise ValueError(f"{path}: the text has SHA-256 {found}, expected {CORPUS_SHA256}")
    paragraphs = raw.decode("ascii").split("\n")
    return Corpus(
        training=[text for at, text in enumerate(paragraphs) if at % HELD_OUT_EVERY],
        held_out=paragraphs[::HELD_OUT_EVERY],
    )
