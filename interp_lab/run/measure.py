"""The loop over samples: load, prepare, run under capture, reduce, hand to the store.

A sample that fails is recorded with its reason and the rest goes on; a batch that does not fit in
memory is halved; Ctrl-C and SIGTERM stop after the batch at hand.
"""

import itertools
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate.utils.memory import should_reduce_batch_size

from interp_lab.capture.plans import Intervention, Plan
from interp_lab.capture.reference import Reference
from interp_lab.capture.roles import interventions_for
from interp_lab.capture.session import Capture, watch
from interp_lab.datasets.base import Dataset, Sample
from interp_lab.datasets.prints import SamplePrints, loaded_with_print
from interp_lab.errors import InterpLabError, SampleError, TooManyFailuresError
from interp_lab.identity.files import Digests
from interp_lab.models.base import LoadedModel, Prepared, Seen
from interp_lab.run.contract import Measuring
from interp_lab.run.going_on import FEWEST_FAILURES
from interp_lab.run.progress import Progress
from interp_lab.run.sweep.pool import Fixed
from interp_lab.store.parts import Failure, PartWriter

log = logging.getLogger(__name__)
Loaded = list[tuple[int, Sample]]
# Place, the sample or what loading it raised, and its fingerprint.
Attempt = tuple[int, Sample | Exception, str]


@runtime_checkable
class EncodesAhead(Protocol):
    """A model whose processor may work on a batch while the model works on the one before."""

    def encode_ahead(self, samples: Sequence[Sample]) -> None:
        """Do what `prepare` needs no device for; it takes up what was made of these samples."""
        ...


class Check(Protocol):
    """What looks at measured batches; `selfcheck.SelfCheck` is the one of a run."""

    def reference(
        self, prepared: Prepared, plans: Sequence[Mapping[str, Plan]], changed: bool, method: str
    ) -> Reference | None:
        """Return what is to watch the batch beside the capture, or None."""
        ...

    def __call__(
        self,
        prepared: Prepared,
        plans: Sequence[Mapping[str, Plan]],
        capture: Capture,
        reference: Reference | None,
    ) -> None:
        """Look at a batch that was measured."""
        ...


class Measurement:
    """Measures samples one batch after the other.

    Args:
        model, dataset: what works on what.
        study: what is measured with this model.
        writer: takes finished and failed samples.
        progress: counts them.
        batch_size: samples a forward; halved when memory runs out. Batches are cut from the whole
            data set, not from what is left of it: the same samples meet whatever was done before.
        max_failed_share: share of failed samples that stops the run.
        check: is called with each measured batch; the run's checks of itself.
        method: how attention is captured, `auto` or `eager`.
        interventions: what to change in every sample, as `capture.roles` reads it.
        seed: of what a model draws while it runs; each batch starts from it and from its place. A
            language model's answers start from the seed and their prompt instead.
        stop: is asked after every batch whether to stop.
        prints: makes the samples' fingerprints, which are written with the parts.
        failed_before: returns how many samples failed before and are not tried again; they count.

    Attributes:
        paths: how captured numbers were made ("lse", "rows", "eager"), by which kernels, and notes.
        failed: samples that failed.
    """

    def __init__(
        self,
        model: LoadedModel,
        dataset: Dataset,
        study: Measuring,
        writer: PartWriter,
        progress: Progress,
        batch_size: int,
        max_failed_share: float,
        check: Check | None = None,
        method: str = "auto",
        interventions: Sequence[Mapping[str, Any]] = (),
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
        prints: SamplePrints | None = None,
        failed_before: Callable[[], int] = lambda: 0,
    ) -> None:
        self.model = model
        self.dataset = dataset
        self.study = study
        self.writer = writer
        self.progress = progress
        self.batch_size = batch_size
        self.max_failed_share = max_failed_share
        self.check = check
        self.method = method
        self.interventions = interventions
        self.seed = seed
        self.stop = stop
        self.failed = 0
        self.paths: dict[str, list[str]] = {"paths": [], "kernels": [], "notes": []}
        self._prints = prints or SamplePrints(dataset, Digests())
        self._ids = dataset.ids()
        self._seen, self._failed_before = 0, failed_before

    def run(self, todo: Sequence[int]) -> bool:
        """Measure the samples at these places, in order; return False if it was stopped.

        Raises:
            TooManyFailuresError: if too large a share has failed.
        """
        size = self.batch_size
        batches = [list(places) for _, places in itertools.groupby(todo, lambda i: i // size)]
        return self.run_all(Fixed(batches))

    def run_all(self, work: Fixed) -> bool:
        """Measure batches as long as there is work; return False if it was stopped.

        Raises:
            TooManyFailuresError: if too large a share has failed.
        """
        with stop_flag() as stopped:

            def stop() -> bool:
                return stopped.is_set() or self.stop()

            while self._run(work, stop):
                if not work.more(stop):
                    return not stop() or work.complete()
        return False

    def _run(self, work: Fixed, stop: Callable[[], bool]) -> bool:
        """Measure what is free now; return False if it was stopped."""
        try:
            for places, loaded in self._loaded_batches(work.batches()):
                self._attempt_all(loaded)
                work.finished(places)
                if not self.writer.waiting:
                    work.written()
                if stop():
                    return False
        finally:
            self.writer.flush()
            work.written()
        return True

    def _loaded_batches(
        self, batches: Iterator[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], Loaded]]:
        """Yield places and loaded samples; the next batch is read while this one is measured."""
        with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
            chunk = next(batches, None)
            following = pool.submit(self._load, chunk) if chunk else None
            while chunk is not None and following is not None:
                places, loaded = chunk, following.result()
                chunk = next(batches, None)
                following = pool.submit(self._load, chunk) if chunk else None
                yield places, self._without_failures(loaded)

    def _load(self, indices: Sequence[int]) -> list[Attempt]:
        """Load a batch, and let the model's processor work on it; in a thread beside the model."""
        loaded = [(i, *loaded_with_print(self.dataset, self._prints, i)) for i in indices]
        good = [sample for _, sample, _ in loaded if not isinstance(sample, Exception)]
        if good and isinstance(self.model, EncodesAhead) and len(good) <= self.batch_size:
            self.model.encode_ahead(good)
        return loaded

    def _without_failures(self, loaded: Sequence[Attempt]) -> Loaded:
        good: Loaded = []
        for index, sample, printed in loaded:
            self.writer.note(self._ids[index], printed)
            if isinstance(sample, Exception):
                self._fail(index, "load", sample)
            else:
                good.append((index, sample))
        return good

    def _attempt_all(self, batch: Loaded) -> None:
        """Measure what was loaded, in batches that fit; the size shrinks when memory runs out."""
        while batch:
            now, batch = batch[: self.batch_size], batch[self.batch_size :]
            self._attempt(now)

    def _attempt(self, batch: Loaded) -> None:
        """Measure a batch; if it fails, less of it; a single sample that fails is recorded."""
        try:
            self._measure(batch)
            return
        except SampleError as error:
            problem: Exception = error
        except InterpLabError:
            raise
        except Exception as error:  # one odd input must not end a run of thousands
            problem = error
        out_of_memory = should_reduce_batch_size(problem)
        if out_of_memory and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(batch) == 1:
            self._fail(batch[0][0], "memory" if out_of_memory else "model", problem)
            return
        # The traceback holds the batch's tensors; without this less would not fit either.
        problem.__traceback__ = None
        if out_of_memory:
            self.batch_size = len(batch) // 2
            log.warning("out of memory with %d samples; trying %d", len(batch), self.batch_size)
            self._attempt_all(batch)
            return
        middle = len(batch) // 2
        self._attempt(batch[:middle])
        self._attempt(batch[middle:])

    def _measure(self, batch: Loaded) -> None:
        samples = [sample for _, sample in batch]
        torch.manual_seed(self.seed * 1_000_003 + batch[0][0])
        with torch.inference_mode():
            prepared = self.model.prepare(samples)
            studies = [self._study_at(place) for place, _ in batch]
            plans = [s.plans(seen.tokens) for s, seen in zip(studies, prepared.seen, strict=True)]
            changes = [interventions_for(self.interventions, s.tokens) for s in prepared.seen]
            reference = None
            if self.check is not None:
                changed = any(changes)
                reference = self.check.reference(prepared, plans, changed, self.method)
            with watch(self.model, prepared, plans, changes, self.method, reference) as capture:
                outputs = [{"plain": output} for output in self.model.run(prepared)]
            rows = list(zip(samples, prepared.seen, capture.rows, strict=True))
            for name, more in self._variants(prepared, rows, changes).items():
                for row, output in zip(outputs, more, strict=True):
                    row[name] = output
            values = [
                study.update(*row, output)
                for study, row, output in zip(studies, rows, outputs, strict=True)
            ]
            # Before the run's check of itself, which NaN would fail whatever its cause is.
            for sample, value in zip(samples, values, strict=True):
                self.writer.as_stored(sample.id, value)
            if self.check is not None:
                self.check(prepared, plans, capture, reference)
        for key, known in self.paths.items():
            known += [name for name in capture.how.get(key, ()) if name not in known]
        finished = zip(batch, values, strict=True)
        self.writer.add_batch([(index, sample.id, value) for (index, sample), value in finished])
        for _ in batch:
            self._seen += 1
            self.progress.step()

    def _study_at(self, place: int) -> Measuring:
        """Return what measures the sample at this place of the data set."""
        at = getattr(self.study, "at", None)
        return self.study if at is None else at(place)

    def _variants(
        self,
        prepared: Prepared,
        rows: Sequence[tuple[Sample, Seen, Mapping[str, Any]]],
        configured: Sequence[Sequence[Intervention]],
    ) -> dict[str, Sequence[Any]]:
        """Run the batch again under each intervention that the study asks for.

        What the configuration changes in every sample (`configured`, one entry a row) stays, so
        that a variant differs from the plain run in its own change alone.
        """
        changes = [self.study.variants(*row) for row in rows]
        names = dict.fromkeys(name for change in changes for name in change)
        outputs: dict[str, Sequence[Any]] = {}
        for name in names:
            # A row without this variant runs unchanged beside the others.
            of_rows = [
                (*always, *change.get(name, ()))
                for always, change in zip(configured, changes, strict=True)
            ]
            with watch(self.model, prepared, [{} for _ in rows], of_rows):
                outputs[name] = self.model.run(prepared)
        return outputs

    def _fail(self, index: int, stage: str, problem: Exception) -> None:
        expected = isinstance(problem, SampleError)
        reason = str(problem) if expected else f"{type(problem).__name__}: {problem}"
        reason = " ".join(reason.split())[:500]
        sample_id = self._ids[index]
        log.warning(
            "sample %s failed (%s): %s",
            sample_id,
            stage,
            reason,
            exc_info=None if expected else problem,
        )
        self.writer.fail(Failure(index, sample_id, stage, reason))
        self._seen += 1
        self.failed += 1
        self.progress.step(failed=True)
        # Of what this command has tried, which may have been odd ones first; and of all samples,
        # where it is too many whatever becomes of the others.
        of_own = self.failed, self._seen
        of_all = self.failed + self._failed_before(), len(self._ids)
        for failed, count in (of_own, of_all):
            if failed >= FEWEST_FAILURES and failed / count > self.max_failed_share:
                raise TooManyFailuresError(
                    f"{failed} of {count} samples failed, more than max_failed_share="
                    f"{self.max_failed_share} allows; the last: {sample_id}: {reason}"
                )


@contextmanager
def stop_flag() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or a polite end, into a flag, the second Ctrl-C into an interrupt.

    SIGTERM and SIGUSR2 are left to whoever handles them already: under Slurm, submitit queues the
    job again and ends it by an exception, after which the finished samples are written as ever.
    Main thread only.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def stop(number: int, frame: object) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()
        log.warning("stopping after the batch at hand; Ctrl-C again to stop at once")

    before = {signal.SIGINT: signal.signal(signal.SIGINT, stop)}
    for name in ("SIGTERM", "SIGUSR2"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, stop)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
