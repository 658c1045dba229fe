"""Shares cut into chunks, so that a job that has finished its own can take what others have left.

A chunk is a few whole batches of one share, in its order. Chunks of a share get smaller: each is a
part of what is left of it, so that taking one costs little while much is left, and the last jobs
end at nearly the same time. The cut follows from the number of batches alone, so all jobs know it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# A chunk is this part of what is left of its share, and at least a batch.
PART_OF_THE_REST = 32


@dataclass(frozen=True)
class Chunk:
    """A piece of the work.

    Args:
        share: whose it is at first.
        number: in its share, from 0 on.
        batches: places of the samples, batch by batch.
    """

    share: int
    number: int
    batches: tuple[Sequence[int], ...]

    @property
    def name(self) -> str:
        """Its name among the claims."""
        return f"{self.share:06d}-{self.number:06d}"

    @property
    def places(self) -> list[int]:
        """The places of its samples, in order."""
        return [place for batch in self.batches for place in batch]


def sizes(batches: int) -> list[int]:
    """Return how many batches each chunk of a share has, by the number of its batches."""
    found = []
    while batches:
        size = max(1, batches // PART_OF_THE_REST)
        found.append(size)
        batches -= size
    return found


def cut(share: int, batches: Sequence[Sequence[int]]) -> list[Chunk]:
    """Return the chunks of a share, in its order.

    Args:
        share: its index.
        batches: places of its samples, batch by batch.
    """
    chunks, start = [], 0
    for number, size in enumerate(sizes(len(batches))):
        chunks.append(Chunk(share, number, tuple(batches[start : start + size])))
        start += size
    return chunks


def next_of_others(left: Mapping[int, Sequence[Chunk]]) -> Chunk | None:
    """Return what to take next: the first free chunk of the share with most batches left.

    Args:
        left: share -> its chunks that nobody has taken yet, in order.
    """
    weights = {share: sum(len(c.batches) for c in chunks) for share, chunks in left.items()}
    if not any(weights.values()):
        return None
    return left[max(weights, key=lambda share: (weights[share], -share))][0]
