"""What a job measures next: its own share, then chunks of the others' that nobody has begun.

A chunk is claimed before it is measured and marked as finished when its samples are on the disk. A
job that dies leaves its chunk, which another takes while the command still runs. A job that finds
nothing free waits for the chunks that others hold, as long as theirs may be expected to take.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from interp_lab.errors import StoppedByUserError
from interp_lab.run.sweep.chunks import Chunk, next_of_others
from interp_lab.store.claims import Claims, Taken

log = logging.getLogger(__name__)
# How long a job looks for chunks of jobs that die, beside the time that its own chunks took.
PATIENCE, SECONDS_OF_PATIENCE = 4.0, 60.0
# Between two looks: a part of what it has waited, within these seconds.
SHORTEST_WAIT, LONGEST_WAIT = 0.25, 5.0
# Chunks that others seem to hold, tried at one look.
TRIES = 8


class Fixed:
    """The work of a job that measures its share and no more.

    Args:
        todo: places of the samples to measure, by batch.
    """

    def __init__(self, todo: Sequence[Sequence[int]]) -> None:
        self.todo = todo
        # How many samples more, or fewer, this job has than its share, before anybody asks.
        self._owed = 0
        self._expect: Callable[[int], None] | None = None

    def report_to(self, expect: Callable[[int], None]) -> None:
        """Call this with how many samples more, or fewer, the job has than its share."""
        expect(self._owed)
        self._expect = expect

    def anything(self) -> bool:
        """Return whether there is something for this job to measure."""
        return bool(self.todo)

    def batches(self) -> Iterator[Sequence[int]]:
        """Yield the batches to measure, until nothing is free."""
        yield from self.todo

    def finished(self, places: Sequence[int]) -> None:
        """Note that a batch was measured, or that its samples failed."""

    def written(self) -> None:
        """Note that everything that was measured is on the disk."""

    def give_back(self, blameless: bool) -> None:
        """Let others take what this job does not finish; see `Claims.give_back`."""

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Let others take what is not finished when the block ends, however it does."""
        blameless = True
        try:
            yield
        except Exception as error:
            blameless = isinstance(error, StoppedByUserError)
            raise
        finally:
            self.give_back(blameless)

    def more(self, stop: Callable[[], bool]) -> bool:
        """Wait until something is free again; return whether it is."""
        return False

    def over(self) -> bool:
        """Return whether this command has measured and merged everything before."""
        return False

    def own_places(self, share: Sequence[int]) -> Sequence[int]:
        """Return the places of the samples that this job answers for, by those of its share."""
        return share

    def complete(self, retried: int = 0, shares: int = 0) -> bool:
        """Return whether all is finished that was to be tried again.

        Args:
            retried: shares whose jobs have noted that they have done so.
            shares: how many there are.
        """
        return retried >= shares

    def close(self) -> None:
        """Forget the claims: all samples are in the result."""


@dataclass
class _Held:
    """A chunk that this job measures."""

    taken: Taken
    left: set[int]
    begun: bool = False


class Pool(Fixed):
    """The work of a job that goes on with what others have not begun.

    Args:
        claims: on the chunks.
        chunks: share -> its chunks, of all shares that this job takes from.
        own: index of its own share.
        todo: places of its own share to measure.
        left: returns which samples at some places are to be measured; whether to look anew.
        clock, sleep: of the waiting.
    """

    def __init__(
        self,
        claims: Claims,
        chunks: Mapping[int, Sequence[Chunk]],
        own: int,
        todo: Sequence[int],
        left: Callable[[Sequence[int], bool], list[int]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(())
        self.taken_over = 0
        self._claims, self._chunks, self._own_share = claims, chunks, own
        self._own_todo, self._left = set(todo), left
        self._clock, self._sleep = clock, sleep
        self._own = deque(chunks[own])
        self._names = {c.name: c for every in chunks.values() for c in every}
        self._held: dict[int, _Held] = {}
        self._ended: list[_Held] = []
        self._stash: tuple[Chunk, list[int]] | None = None
        self._looks, self._going_on = 0, False
        self._longest, self._last = 0.0, 0.0

    def anything(self) -> bool:
        """Return whether there is something for this job to measure; it may be claimed then."""
        if self._claims.over():
            return False
        if self._own_todo:
            return True
        self._stash = self._next()
        return self._stash is not None

    def batches(self) -> Iterator[Sequence[int]]:
        """Yield the batches to measure, until nothing is free; each is claimed by then."""
        while found := self._stash or self._next():
            self._stash = None
            chunk, todo = found
            self._note_time()
            wanted = set(todo)
            for batch in chunk.batches:
                if places := [p for p in batch if p in wanted]:
                    self._held[places[0]].begun = True
                    yield places

    def finished(self, places: Sequence[int]) -> None:
        """Note that a batch was measured, or that its samples failed."""
        for place in places:
            held = self._held.pop(place)
            held.left.discard(place)
            if not held.left:
                self._ended.append(held)

    def written(self) -> None:
        """Note that everything that was measured is on the disk: others need not do it again."""
        for held in self._ended:
            self._claims.finish(held.taken)
        self._ended = []

    def give_back(self, blameless: bool) -> None:
        """Let others take what this job does not finish."""
        for held in {id(h): h for h in [*self._held.values(), *self._ended]}.values():
            self._claims.give_back(held.taken, blameless or not held.begun)
        self._held, self._ended, self._stash = {}, [], None

    def more(self, stop: Callable[[], bool]) -> bool:
        """Wait until a chunk is free, all are finished, or the others take longer than expected.

        Args:
            stop: is asked at every look whether to stop.
        """
        began, said, self._last = self._clock(), False, 0.0
        patience = max(SECONDS_OF_PATIENCE, PATIENCE * self._longest)
        while not self.complete() and not stop():
            self._stash = self._next()
            if self._stash is not None:
                return True
            waited = self._clock() - began
            if waited > patience:
                log.info("the last samples are with other jobs, which may have died; leaving")
                return False
            if not said and waited > 1.0:
                said = True
                log.info("waiting for the last samples, which other jobs measure")
            self._sleep(min(max(0.1 * waited, SHORTEST_WAIT), LONGEST_WAIT))
        return False

    def over(self) -> bool:
        """Return whether this command has measured and merged everything before."""
        return self._claims.over()

    def own_places(self, share: Sequence[int]) -> Sequence[int]:
        """Return the places of the samples that have been finished, by whichever job."""
        every = self._names if self._claims.over() else self._claims.listing().done
        return [p for name in every if name in self._names for p in self._names[name].places]

    def close(self) -> None:
        """Forget the claims: all samples are in the result."""
        self._claims.close()

    def complete(self, retried: int = 0, shares: int = 0) -> bool:
        """Return whether every chunk is finished, or left for good."""
        if self._claims.over():
            return True
        return not set(self._names) - self._claims.listing().done - self._claims.given_up

    def _next(self) -> tuple[Chunk, list[int]] | None:
        """Claim a chunk that has something to measure; return it and those samples."""
        while (claimed := self._claim()) is not None:
            chunk, taken, expected = claimed
            own = chunk.share == self._own_share
            if own and not taken.before:
                todo = self._own_todo_of(chunk)
            else:
                todo = self._left(chunk.places, taken.before > 0)
            if not own:
                self.taken_over += len(todo)
            self._owe(len(todo) - expected)
            held = _Held(taken, set(todo))
            self._held |= dict.fromkeys(todo, held)
            if todo:
                return chunk, todo
            self._claims.finish(taken)
        return None

    def _owe(self, more: int) -> None:
        if self._expect is None:
            self._owed += more
        else:
            self._expect(more)

    def _own_todo_of(self, chunk: Chunk) -> list[int]:
        return [place for place in chunk.places if place in self._own_todo]

    def _claim(self) -> tuple[Chunk, Taken, int] | None:
        """Claim the next own chunk, else one that nobody has begun, else one of a dead job.

        Returns:
            It, the claim, and how many of its samples are among those that this job expects.
        """
        while self._own:
            chunk = self._own.popleft()
            expected = len(self._own_todo_of(chunk))
            if (taken := self._claims.take(chunk.name)) is not None:
                return chunk, taken, expected
            self._owe(-expected)
        listing = self._claims.listing()
        tried = listing.begun | listing.done
        free = {s: [c for c in cs if c.name not in tried] for s, cs in self._chunks.items()}
        while (chunk := next_of_others(free)) is not None:
            if (taken := self._claims.take(chunk.name)) is not None:
                self._say_going_on()
                return chunk, taken, 0
            free[chunk.share].remove(chunk)
        return self._abandoned(listing.begun - listing.done)

    def _say_going_on(self) -> None:
        if not self._going_on:
            self._going_on = True
            log.info("own share finished; going on with what others have not begun")

    def _abandoned(self, begun: frozenset[str]) -> tuple[Chunk, Taken, int] | None:
        """Claim a chunk whose holder has died."""
        mine = {h.taken.name for h in [*self._held.values(), *self._ended]}
        names = sorted((begun & set(self._names)) - mine - self._claims.given_up)
        # Not all of many at one look, and not the same ones at the next.
        start = (self._own_share + self._looks * TRIES) % max(len(names), 1)
        self._looks += 1
        for name in [*names[start:], *names[:start]][:TRIES]:
            if (taken := self._claims.take(name)) is not None:
                if taken.before:
                    log.info("a job has left samples unfinished: taking them over")
                return self._names[name], taken, 0
        return None

    def _note_time(self) -> None:
        now = self._clock()
        self._longest = max(self._longest, now - self._last if self._last else 0.0)
        self._last = now
