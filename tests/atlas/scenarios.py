"""Watching one tower of one model in four ways, each held against the truth.

A row by itself; two rows, one of them padded; a generation with its decode steps; a key blocked in
the first layer. A pattern is right if it is that of the model's eager attention, or, where that is
not by what the values were weighed, those weights: then the model is at odds with itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from blocking import block_of, renormalised_gap
from building import one_line
from dummy_inputs import Inputs, padded, two_rows
from eager_truth import Blocked, Truth, distance, recorded, weights_recorded
from torch import Tensor, nn

from interp_lab.capture import (
    AttentionPlan,
    BlockAttention,
    Keep,
    generate_watched,
    watch_attention,
)
from interp_lab.capture.towers import Site, find_sites
from interp_lab.errors import InterpLabError

Status = Literal["equal", "odds", "refused", "wrong", "raised"]
TOLERANCE = 1e-4
# Of a whole output, in parts of its largest number; layers of a random model magnify rounding.
OUTPUT_TOLERANCE = 2e-3
NEW_TOKENS = 4
PADDING = 4
SCENARIOS = ("prefill", "padded", "generated", "blocked")


@dataclass
class Outcome:
    """What became of one scenario.

    Args:
        status: see the module; wrong and raised are faults.
        difference: the largest of any pattern.
        paths: how the numbers were made (lse, rows, eager).
        said: a refusal's message, or what is wrong.
    """

    status: Status
    difference: float = 0.0
    paths: list[str] = field(default_factory=list)
    said: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """One tower under watch.

    Args:
        model: the whole model.
        caller: what is called, the model or a part of it.
        inputs: for one row.
        tower: as the product is asked for it.
        truth: of the row by itself.
        layers: which of the tower's are watched; None for all.
        at_odds: whether the model's eager output is another than its fused one.
        method: by which it is watched.
    """

    model: nn.Module
    caller: nn.Module
    inputs: Inputs
    tower: str
    truth: Truth
    layers: tuple[int, ...] | None = None
    at_odds: bool = False
    method: Literal["fused", "eager"] = "fused"

    def plan(self) -> AttentionPlan:
        """Return a plan that keeps everything."""
        return AttentionPlan(None, None, Keep(), layers=self.layers, tower=self.tower)


class WrongError(Exception):
    """What was captured is not what the model attended to."""


def judged(scenario: Callable[[], Outcome | None]) -> Outcome | None:
    """Return a scenario's outcome, whatever it raises."""
    try:
        return scenario()
    except WrongError as error:
        return Outcome("wrong", said=str(error))
    except InterpLabError as error:
        return Outcome("refused", said=" ".join(str(error).split()))
    except Exception as error:  # a raw error is a fault of the product
        return Outcome("raised", said=one_line(error))


def prefill(subject: Subject) -> Outcome:
    """One row by itself."""
    results, _ = _watched(subject, subject.inputs, 1)
    _one_step(results)
    return _compared(subject, results, lambda: _weights(subject, subject.inputs), subject.truth)


def padded_batch(subject: Subject) -> Outcome | None:
    """Two rows, the second padded: on the left, on the right where the model refuses that."""
    for side in ("left", "right", "none"):
        rows = two_rows(subject.inputs) if side == "none" else padded(subject.inputs, side, PADDING)
        truth = None if rows is None else _tried(subject, rows)
        if rows is None or truth is None:
            continue
        results, _ = _watched(subject, rows, 2)
        _one_step(results)
        mask = rows.get("attention_mask")
        return _compared(subject, results, lambda r=rows: _weights(subject, r), truth, mask)
    return None


def generated(subject: Subject, rows: int) -> Outcome | None:
    """A greedy generation; every decode step against that of an eager generation."""
    model: Any = subject.model
    inputs = padded(subject.inputs, "left", PADDING) if rows == 2 else subject.inputs
    if inputs is None or subject.caller is not model or not model.can_generate():
        return None
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    try:
        with recorded(model) as truth:
            tokens = model.generate(**_copies(inputs), **options)
    except Exception:  # the class cannot do it on these inputs, watched or not
        return None
    steps = {len(truth.patterns.get(id(s.module), ())) for s in _sites(subject)}
    decode = [{"d": subject.plan()}] * rows if max(steps, default=0) > 1 else [{}] * rows
    found = generate_watched(
        model,
        _copies(inputs),
        [{"p": subject.plan()}] * rows,
        decode,
        capture_method=subject.method,
        **options,
    )
    for row, one in enumerate(found):
        if one.tokens.tolist() != tokens[row][-len(one.tokens) :].tolist():
            raise WrongError(f"other tokens: {one.tokens.tolist()}, eager {tokens[row].tolist()}")
    results = [
        [*one.prefill["p"].steps, *(one.decode["d"].steps if "d" in one.decode else ())]
        for one in found
    ]
    paths = sorted({p for one in found for p in one.prefill["p"].paths})
    layers = found[0].prefill["p"].layers
    return _compared(
        subject,
        _Results(results, layers, paths),
        lambda: _weights_generated(model, inputs, options),
        truth,
        inputs.get("attention_mask"),
    )


def blocked(subject: Subject) -> Outcome | None:
    """One key of the first layer blocked, against arithmetic by hand and a blocked eager model."""
    watched = [s for s in _sites(subject) if subject.layers is None or s.layer in subject.layers]
    first = min(watched, key=lambda s: s.layer)
    unblocked = _weights(subject, subject.inputs) if subject.at_odds else subject.truth
    before = unblocked.patterns[id(first.module)][0][0]
    queries, key = block_of(before)
    if queries is None:
        return None
    named = tuple(range(queries.start, queries.stop))
    change = BlockAttention(named, (key,), layers=(first.layer,), tower=subject.tower)
    results, output = _watched(subject, subject.inputs, 1, [[change]])
    at_first = torch.as_tensor(results.rows[0][0][results.layers.index(first.layer)])
    piece = at_first[:, : before.shape[1], : before.shape[2]]
    gap = renormalised_gap(before, piece, queries, key)
    if gap > TOLERANCE:
        raise WrongError(f"blocked row is {gap:.1e} from arithmetic by hand")
    if subject.at_odds:
        # A blocked eager model is another model here.
        return Outcome("odds", gap, results.paths)
    with recorded(subject.model, Blocked(first.module, queries, key)) as truth:
        truth.output = subject.caller(**subject.inputs)
    if float(truth.patterns[id(first.module)][0][0][:, queries, key].abs().max()) > TOLERANCE:
        # Its eager function looks at no mask, so its eager model cannot be blocked this way.
        return Outcome("equal", gap, results.paths)
    moved = distance(output, truth.output)
    if moved > OUTPUT_TOLERANCE:
        raise WrongError(f"output is {moved:.1e} from that of a blocked eager model")
    outcome = _compared(subject, results, lambda: None, truth)
    outcome.difference = max(outcome.difference, gap)
    return outcome


@dataclass(frozen=True)
class _Results:
    """What was captured: per row its steps (layer, head, query, key); layers; paths."""

    rows: Sequence[Sequence[Any]]
    layers: Sequence[int]
    paths: list[str]


def _sites(subject: Subject) -> tuple[Site, ...]:
    """Return which module the product takes for which layer of the tower."""
    return find_sites(subject.model, subject.tower)


def _watched(
    subject: Subject, inputs: Inputs, rows: int, changes: Sequence[Any] = ()
) -> tuple[_Results, Any]:
    plans = [{"p": subject.plan()}] * rows
    extra = {"output_attentions": True} if subject.method == "eager" else {}
    with (
        torch.no_grad(),
        watch_attention(subject.model, plans, changes, method=subject.method) as watched,
    ):
        output = subject.caller(**inputs, **extra)
    found = [row["p"] for row in watched.results]
    paths = sorted({p for captured in found for p in captured.paths})
    return _Results([c.steps for c in found], found[0].layers, paths), output


def _one_step(results: _Results) -> None:
    """Raise WrongError if one forward was taken for several."""
    counts = {len(steps) for steps in results.rows}
    if counts != {1}:
        raise WrongError(f"one forward gives {max(counts)} steps")


def _tried(subject: Subject, inputs: Inputs) -> Truth | None:
    """Return the truth of other inputs, or None if the model itself refuses them."""
    try:
        with recorded(subject.model) as truth:
            subject.caller(**inputs)
        return truth
    except Exception:  # whatever the class raises, it does not take these
        return None


def _weights(subject: Subject, inputs: Inputs) -> Truth:
    with weights_recorded(subject.model) as truth:
        subject.caller(**inputs)
    return truth


def _weights_generated(model: Any, inputs: Inputs, options: dict[str, Any]) -> Truth:
    with weights_recorded(model) as truth:
        model.generate(**_copies(inputs), **options)
    return truth


def _copies(inputs: Inputs) -> Inputs:
    """Return inputs that a model may write into: BLIP's generation puts its own first token."""
    return {name: v.clone() if isinstance(v, Tensor) else v for name, v in inputs.items()}


def _compared(
    subject: Subject,
    results: _Results,
    weights: Callable[[], Truth | None],
    truth: Truth,
    mask: Tensor | None = None,
) -> Outcome:
    """Return how far captured patterns are from the truth.

    Raises:
        WrongError: if they are neither those of eager attention nor those of the kernel that ran.
    """
    try:
        return Outcome("equal", _gap(subject, results, truth, mask), results.paths)
    except WrongError as error:
        other = weights()
        if other is None or not other.patterns:
            raise
        try:
            gap = _gap(subject, results, other, mask)
        except WrongError:
            raise error from None
        return Outcome("odds", gap, results.paths, f"eager attention differs: {error}")


def _gap(subject: Subject, results: _Results, truth: Truth, mask: Tensor | None) -> float:
    """Return the largest difference over rows, layers and steps; WrongError beyond tolerance."""
    by_layer = {site.layer: site for site in _sites(subject)}
    worst = 0.0
    for row, steps in enumerate(results.rows):
        kept = None if mask is None else mask[row].bool()
        for i, layer in enumerate(results.layers):
            site = by_layer[layer]
            calls = truth.patterns.get(id(site.module), [])
            # Of an attention of the module's own any softmax may be the one that it hands out.
            alone = len(steps) == 1 and id(site.module) not in truth.by_function
            tries = [calls, *([c] for c in calls if alone and len(calls) > 1)]
            got = [torch.as_tensor(step[i]).float() for step in steps]
            gaps = [_layer_gap(got, c, (row, len(results.rows)), kept, site.path) for c in tries]
            right = [gap for gap in gaps if isinstance(gap, float)]
            if not right:
                raise WrongError(gaps[0])
            worst = max(worst, min(right))
    return worst


def _layer_gap(
    got: Sequence[Tensor],
    calls: Sequence[Tensor],
    place: tuple[int, int],
    kept: Tensor | None,
    path: str,
) -> float | str:
    """Return one layer's largest difference, or what is wrong.

    Args:
        got: captured, a step each.
        calls: the true ones, a call each.
        place: the row, and how many rows there are.
        kept: False for the row's padding.
        path: the layer's, for what is said.
    """
    wanted = _by_step(calls, len(got), *place)
    if wanted is None:
        return f"{path}: {len(got)} steps of {_shapes(calls)}"
    sizes = wanted[0].shape[1:]
    if kept is not None and not {len(kept), len(kept) + 1} & set(sizes):
        # The mask counts another sequence than this attention's.
        kept = None
    try:
        pairs = enumerate(zip(got, wanted, strict=True))
        return max(_difference(g, w.float(), kept, n, path) for n, (g, w) in pairs)
    except WrongError as error:
        return str(error)


def _by_step(calls: Sequence[Tensor], steps: int, row: int, rows: int) -> list[Tensor] | None:
    """Return the true pattern of one row, step by step; None if calls are not the steps.

    A step of several calls or of several tiles a row is packed: nothing crosses between them.
    """
    if not calls or any(c.shape[0] % rows for c in calls):
        return None
    tiles = [list(c.chunk(rows)[row]) for c in calls]
    if steps == 1:
        tiles = [[t for call in tiles for t in call]]
    if len(tiles) != steps:
        return None
    return [_packed(parts) for parts in tiles]


def _packed(parts: Sequence[Tensor]) -> Tensor:
    """Return patterns (head, query, key) along the diagonal of one."""
    if len(parts) == 1:
        return parts[0]
    queries, keys = (sum(p.shape[axis] for p in parts) for axis in (1, 2))
    whole = torch.zeros(parts[0].shape[0], queries, keys)
    q = k = 0
    for part in parts:
        whole[:, q : q + part.shape[1], k : k + part.shape[2]] = part
        q, k = q + part.shape[1], k + part.shape[2]
    return whole


def _difference(got: Tensor, want: Tensor, kept: Tensor | None, step: int, path: str) -> float:
    """Return the largest difference from the true pattern at the row's own tokens.

    Raises:
        WrongError: if it is beyond the tolerance, or the shapes are not those of any way to count.
    """
    for view in _views(want, kept, step, got.shape):
        if view.shape == got.shape:
            gap = float((view - got).abs().max()) if got.numel() else 0.0
            if not gap <= TOLERANCE:
                raise WrongError(f"{path}, step {step}: differs by {gap:.1e}")
            return gap
    raise WrongError(f"{path}, step {step}: {tuple(got.shape)} for {tuple(want.shape)}")


def _views(want: Tensor, kept: Tensor | None, step: int, shape: Sequence[int]) -> list[Tensor]:
    """Return the true pattern with padding left out of each axis that has as many places as it.

    A window's cache has let go of keys; what is not among a step's keys has weight 0. Where the
    model puts a token of its own after those of the mask, padding is what that does not look at.
    """
    if kept is None:
        missing = shape[-1] - want.shape[-1]
        slid = torch.nn.functional.pad(want, (missing, 0)) if missing > 0 and step else want
        return [want, slid]
    real = torch.cat((kept, torch.ones(step, dtype=torch.bool)))
    missing = len(real) - want.shape[-1]
    views = []
    if missing > 0 and step:
        views.append(torch.nn.functional.pad(want, (missing, 0))[:, :, real])
    for columns in (real, kept):
        queries, keys = (size == len(columns) for size in want.shape[1:])
        if queries or keys:
            part = want[:, :, columns] if keys else want
            views.append(part[:, columns] if queries else part)
    if not views and want.shape[1] == want.shape[2] == len(kept) + 1:
        looked_at = want[:, -1].sum(0) > 0
        views = [want[:, looked_at][:, :, looked_at]]
    return views or [want]


def _shapes(calls: Sequence[Tensor]) -> str:
    return f"{len(calls)} calls, {[tuple(c.shape) for c in calls[:3]]}"
