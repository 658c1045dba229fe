"""What a watch collects: reduced numbers per plan and batch row, stacked over layers at the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp_lab.capture.plans import AttentionPlan
from interp_lab.errors import ConfigError, NotFiniteError, UnsupportedModelError

# By how much the sum of a captured row may exceed rounding: a pattern in half precision is off by
# 0.4 % at most.
SUM_TOLERANCE = 2e-2


@dataclass(frozen=True)
class Captured:
    """One plan's numbers for one batch row.

    Args:
        steps: one tensor (layer, ...) for each forward that counted: one for a prompt, one for each
            decode step. Decode steps are ragged where the keys are all there are.
        layers: the layer index of each entry of the first axis.
        paths: per layer how the numbers were made: "lse" (from the kernel's log-sum-exp), "rows"
            (full score rows in bounded chunks), "eager" (the model's own pattern); joined by "+"
            if several.
        kernels: per layer the kernel that made the output.
    """

    steps: tuple[Tensor, ...]
    layers: tuple[int, ...]
    paths: tuple[str, ...]
    kernels: tuple[str, ...]

    @property
    def values(self) -> Tensor:
        """The only step as (layer, ...), or several steps of one shape as (step, layer, ...).

        Raises:
            ConfigError: if there is no step, or steps differ in shape (use `steps`).
        """
        if len({tuple(s.shape) for s in self.steps}) > 1:
            raise ConfigError("the steps have different shapes (growing keys); read `.steps`")
        if not self.steps:
            raise ConfigError("no forward matched the plan's `when`; run one inside the block")
        return self.steps[0] if len(self.steps) == 1 else torch.stack(self.steps)


class Tally:
    """Streams one plan's blocks of one batch row, layer by layer, into `Captured`."""

    def __init__(self, name: str, row: int, plan: AttentionPlan, layers: Sequence[int]) -> None:
        self.name, self.row, self.plan = name, row, plan
        self.layers = tuple(layers)
        self._steps: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        self._open: dict[int, tuple[Any, int]] = {}
        self._paths: dict[int, dict[str, None]] = {layer: {} for layer in layers}
        self._kernels: dict[int, dict[str, None]] = {layer: {} for layer in layers}
        self._seen, self._needed = 0, 0
        # Layer -> by how much a head's row sums were off 1 at most; on the device until the end.
        self._off: dict[int, Tensor] = {}
        self.called = False

    def wants(self, decode: bool) -> bool:
        """Return whether forwards of this kind count."""
        return self.plan.when in ("all", "decode" if decode else "prefill")

    def add(self, layer: int, log_block: Tensor) -> None:
        """Take a chunk of the log pattern, (head, query, key), after the ones before it.

        The chunk is used up: reducers that want the pattern get it in the same memory.
        """
        reduce = self.plan.reduce
        count = log_block.shape[1]
        state = reduce.partial(log_block if reduce.in_log_space else log_block.exp_())
        if layer in self._open and self.plan.queries != "last":
            first, before = self._open[layer]
            try:
                state = reduce.combine(first, state)
            except RuntimeError as error:
                raise ConfigError(
                    f"plan {self.name!r}: parts of one prompt differ in their number of keys; "
                    "name the keys, or give watch_attention the prompt's attention_mask"
                ) from error
            count += before
        self._open[layer] = (state, count)

    def check_sum(self, layer: int, log_block: Tensor, whole: bool) -> None:
        """Look at the sum of a chunk's newest row: over all keys 1, over some of them no more.

        Args:
            layer: the layer.
            log_block: (head, query, key).
            whole: whether all of the row's pattern lies on keys, none on attention sinks.
        """
        off = log_block[:, -1].exp().sum(-1) - 1
        off = off.abs() if whole and self.plan.keys is None else off
        before = self._off.get(layer)
        self._off[layer] = off if before is None else torch.maximum(before, off)

    def note(self, layer: int, path: str, kernel: str, end: int, last_key: int) -> None:
        """Record how a layer's numbers are made, the columns seen and the last key's column."""
        self._paths[layer][path] = None
        self._kernels[layer][kernel] = None
        self._seen, self._needed = max(self._seen, end), max(self._needed, last_key + 1)

    def close(self, layer: int) -> None:
        """End the step that is open in a layer.

        Raises:
            ConfigError: if the model did not compute all queries that the plan names.
        """
        if layer not in self._open:
            return
        state, count = self._open.pop(layer)
        named = self.plan.queries
        one_step = self.plan.when == "prefill"
        if one_step and isinstance(named, tuple) and count != len(named):
            raise ConfigError(
                f"plan {self.name!r}, row {self.row}: {len(named)} queries are named up to token "
                f"{named[-1]}, but the model computed {count} of them"
            )
        self._steps[layer].append(self.plan.reduce.finish(state))

    def result(self) -> Captured:
        """Return what was collected, stacked over layers on the first layer's device.

        Raises:
            ConfigError: if layers saw different numbers of forwards, or a key was never seen.
        """
        if self._needed > self._seen:
            raise ConfigError(
                f"plan {self.name!r}, row {self.row}: key column {self._needed - 1} is named, but "
                f"the model saw {self._seen} columns"
            )
        for layer in self.layers:
            self.close(layer)
        counts = {len(s) for s in self._steps.values()}
        if len(counts) != 1:
            seen = ", ".join(f"layer {k}: {len(s)}" for k, s in list(self._steps.items())[:6])
            raise ConfigError(
                f"plan {self.name!r}: layers saw different numbers of forwards ({seen}); name the "
                "layers of one kind in the plan"
            )
        return Captured(
            steps=tuple(self._stacked(p) for p in zip(*self._steps.values(), strict=True)),
            layers=self.layers,
            paths=tuple("+".join(self._paths[layer]) for layer in self.layers),
            kernels=tuple("+".join(self._kernels[layer]) for layer in self.layers),
        )

    def _stacked(self, parts: Sequence[Tensor]) -> Tensor:
        """Return one step of all layers, (layer, ...), on the first layer's device.

        Raises:
            ConfigError: if the layers' numbers differ in shape.
        """
        shapes = {layer: tuple(p.shape) for layer, p in zip(self.layers, parts, strict=True)}
        if len(set(shapes.values())) > 1:
            first, *others = shapes.items()
            other = next(item for item in others if item[1] != first[1])
            raise ConfigError(
                f"plan {self.name!r}: layers differ in heads, queries or keys (layer {first[0]} "
                f"gives {first[1]}, layer {other[0]} {other[1]}); give each shape a plan of its "
                "own that names its layers"
            )
        return torch.stack([p.to(parts[0].device) for p in parts])

    def sums_off(self) -> dict[int, Tensor]:
        """Return, by layer, by how much each head's rows were off a sum of 1 at most."""
        return self._off

    def refuse_wrong_sum(self, layer: int, off: float) -> None:
        """Refuse rows whose sum is not 1.

        Args:
            layer: where.
            off: by how much, the largest of the layer's heads.

        Raises:
            UnsupportedModelError: names the layer and the sum.
            NotFiniteError: if the sum is none; names the layer and the head.
        """
        if not math.isfinite(off):
            head = int((~self._off[layer].isfinite()).nonzero()[0])
            raise NotFiniteError(
                f"plan {self.name!r} holds NaN at layer {layer}, head {head}: the queries, "
                "keys or mask of this sample there are NaN or infinite"
            )
        if not off <= SUM_TOLERANCE:
            whole = "all keys" if self.plan.keys is None else "its keys"
            raise UnsupportedModelError(
                f"plan {self.name!r}, row {self.row}, layer {layer}: a row of the pattern sums "
                f"to 1 +- {abs(off):.3g} over {whole}, so it is no "
                "softmax over the keys that were named; this attention cannot be captured"
            )


def refuse_wrong_sums(tallies: Sequence[Tally]) -> None:
    """Refuse rows whose sum is not 1; the device is asked here, once for all, and not before.

    Raises:
        UnsupportedModelError, NotFiniteError: see `Tally.refuse_wrong_sum`.
    """
    found = [(t, layer, off.max()) for t in tallies for layer, off in t.sums_off().items()]
    if not found:
        return
    device = found[0][2].device
    largest = torch.stack([off.to(device) for _, _, off in found]).tolist()
    for (tally, layer, _), off in zip(found, largest, strict=True):
        tally.refuse_wrong_sum(layer, off)
