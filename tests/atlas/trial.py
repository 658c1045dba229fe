"""One model type from its configuration to a line of the atlas."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from building import Built, builds, one_line, sharpen
from dummy_inputs import PICTURES, WAVES, Inputs, answer_start, runs
from eager_truth import Truth, distance, implementations, run
from model_types import MissingPackageError, choose
from scenarios import (
    OUTPUT_TOLERANCE,
    Outcome,
    Subject,
    blocked,
    generated,
    judged,
    padded_batch,
    prefill,
)
from torch import nn
from transformers import PreTrainedModel

from interp_lab.capture.towers import find_sites
from interp_lab.errors import InterpLabError

NAMED = ("language", "vision", "audio", "encoder", "decoder", "cross")
LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
# Seconds of the processor after which no further step of the ladder is tried; once something
# runs, a third of them.
PATIENCE = 5.0
# Of the whole output; where two right ways to compute differ by more in fp32, rounding is magnified
# on its way through the model, and a difference is judged in float64.
MAGNIFIED = 1e-5


@dataclass(frozen=True)
class Unit:
    """A module that runs: the whole model, or a part that the model's own call left out."""

    path: str
    module: nn.Module
    inputs: Inputs
    truth: Truth


def one(model_type: str) -> dict[str, Any]:
    """Return everything that is known of a type, as plain values."""
    start = time.process_time()
    row: dict[str, Any] = {"type": model_type, "reason": "", "why": "", "towers": []}
    try:
        chosen = choose(model_type)
    except MissingPackageError as error:
        return row | {"reason": "package missing", "why": str(error)}
    if chosen is None:
        return row | {"reason": "no class of its own", "why": ""}
    row["class"] = chosen.model.__name__
    complaints: list[str] = []
    best: tuple[Built, list[Unit], list[str]] | None = None
    built = False
    for made in builds(chosen, complaints):
        built = True
        units, missed = units_of(made.model, complaints)
        if units and (best is None or len(missed) < len(best[2])):
            best = (made, units, missed)
        late = time.process_time() - start > (PATIENCE if best is None else PATIENCE / 3)
        if late or (best is not None and not best[2]):
            break
    row["seconds"] = round(time.process_time() - start, 1)
    if best is None:
        return row | reason(built, complaints)
    measure(row, *best)
    row["seconds"] = round(time.process_time() - start, 1)
    return row


def reason(built: bool, complaints: Sequence[str]) -> dict[str, str]:
    """Return why a type could not be measured."""
    said = complaints[0] if complaints else ""
    needs = [c for c in complaints if "ImportError" in c or "requires the" in c]
    if needs:
        return {"reason": "package missing", "why": needs[0]}
    return {"reason": "inputs not found" if built else "not built", "why": said}


def units_of(model: PreTrainedModel, complaints: list[str]) -> tuple[list[Unit], list[str]]:
    """Return what runs, with the truth of each, and the attention that none of it reaches."""
    inputs, said = runs(model, model.config)
    complaints += said
    units, seen, reached = [], set(), set()
    if inputs is not None:
        units.append(Unit("", model, inputs, run(model, model, inputs)))
        seen = set(units[0].truth.patterns)
        reached = units[0].truth.called | seen
    parts = [(n, m) for n, m in model.named_modules() if n and isinstance(m, PreTrainedModel)]
    tried: set[str] = set()
    missed = []
    for path, module in attention_of(model):
        above = [n for n, _ in parts if path.startswith(f"{n}.") and n not in tried]
        for name in sorted(above, key=len, reverse=True):
            if id(module) in reached:
                break
            tried.add(name)
            part: Any = model.get_submodule(name)
            own, _ = runs(part, part.config)
            truth = None if own is None else run(model, part, own)
            if truth is not None and own is not None and set(truth.patterns) - seen:
                units.append(Unit(name, part, own, truth))
                seen |= set(truth.patterns)
                reached |= truth.called | seen
        if id(module) not in reached:
            missed.append(path)
    return units, missed


def attention_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the innermost modules with attention in their class's name, in order."""
    named = [(n, m) for n, m in model.named_modules() if "Attention" in type(m).__name__]
    return [
        (n, m)
        for n, m in named
        if not any("Attention" in type(x).__name__ for x in list(m.modules())[1:])
    ]


def measure(row: dict[str, Any], made: Built, units: list[Unit], missed: list[str]) -> None:
    """Sharpen the model, watch every tower of it, and write down what became of each."""
    model = made.model
    callers = {i for unit in units for i in unit.truth.patterns}
    row.update(divisor=made.divisor, unreached=missed, inputs=[sorted(u.inputs) for u in units])
    row["implementations"] = sorted({str(n) for _, n in implementations(model).values()})
    if not callers:
        row["reason"] = "attention without patterns" if attention_of(model) else "no attention"
        row["why"] = ", ".join(sorted({type(m).__name__ for _, m in attention_of(model)}))
        return
    sharpen([m for _, m in attention_of(model)])
    sharpen([m for m in model.modules() if id(m) in callers])
    prepare_generation(model)
    for unit in units:
        # Some hide parts of their input at random: the same parts, then, in every forward.
        unit.module.register_forward_pre_hook(lambda *_: torch.manual_seed(0) and None)
    compare(row, model, units)
    faults = any(o["status"] == "wrong" for t in row["towers"] for o in t["outcomes"].values())
    if faults and row["own_difference"] > MAGNIFIED:
        model.double()
        compare(row, model, [replace(unit, inputs=in_double(unit.inputs)) for unit in units])
        row["dtype"] = "float64"


def in_double(inputs: Inputs) -> Inputs:
    """Return inputs whose numbers are of twice the precision."""
    return {
        k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in inputs.items()
    }


def compare(row: dict[str, Any], model: PreTrainedModel, units: list[Unit]) -> None:
    """Watch every tower of a model and write down what became of each."""
    units = [replace_truth(model, unit) for unit in units]
    row["own_difference"] = max(own_difference(unit) for unit in units)
    row["towers"] = []
    for tower in NAMED:
        take(row, model, units, tower, named=True)
    for unit in units:
        for tower in stacks(model, unit):
            if tower not in {t["tower"] for t in row["towers"]}:
                take(row, model, [unit], tower, named=False)


def prepare_generation(model: Any) -> None:
    """Let a generation begin at a known token and end at its length only."""
    config = getattr(model, "generation_config", None)
    if config is not None:
        config.eos_token_id = config.forced_bos_token_id = config.forced_eos_token_id = None
        if model.config.is_encoder_decoder:
            config.decoder_start_token_id = answer_start(model.config)


def replace_truth(model: nn.Module, unit: Unit) -> Unit:
    """Return the unit with the truth of the weights as they are now."""
    return replace(unit, truth=run(model, unit.module, unit.inputs))


def own_difference(unit: Unit) -> float:
    """Return how far the model's fused output is from its eager one."""
    with torch.no_grad():
        return distance(unit.module(**unit.inputs), unit.truth.output)


def stacks(model: nn.Module, unit: Unit) -> list[str]:
    """Return the towers by path: what holds numbered layers, one for each attention of a layer."""
    kinds: dict[str, dict[str, None]] = {}
    for path, module in model.named_modules():
        if id(module) in unit.truth.patterns:
            above, inside = split(model, path)
            kinds.setdefault(above, {})[inside] = None
    return [
        stack if len(found) == 1 or not inside else f"{stack}:{inside}"
        for stack, found in kinds.items()
        for inside in found
    ]


def split(model: nn.Module, path: str) -> tuple[str, str]:
    """Return the module above a path's first number that is called, and the names below it."""
    parts = path.split(".")
    number = next((i for i, p in enumerate(parts) if p.isdigit()), len(parts) - 1)
    above = parts[:number]
    # A name of the product's own is not taken for a path; the list of layers below it is.
    while above and isinstance(model.get_submodule(".".join(above)), LISTS):
        if ".".join(above[:-1]) in NAMED:
            break
        above.pop()
    last = max((i for i, p in enumerate(parts) if p.isdigit()), default=number)
    return ".".join(above), ".".join(parts[last + 1 :])


def take(
    row: dict[str, Any], model: nn.Module, units: Sequence[Unit], tower: str, named: bool
) -> None:
    """Watch one tower and add what became of it to the row."""
    try:
        sites = {id(s.module) for s in find_sites(model, tower)}
    except InterpLabError as error:
        if named and not may_have(model, units, tower):
            return
        add(row, tower, named, {"prefill": Outcome("refused", said=" ".join(str(error).split()))})
        return
    except Exception as error:  # a raw error is a fault of the product
        add(row, tower, named, {"prefill": Outcome("raised", said=one_line(error))})
        return
    unit = next((u for u in units if sites & set(u.truth.patterns)), units[0])
    subject = Subject(model, unit.module, unit.inputs, tower, unit.truth, at_odds=is_at_odds(row))
    add(row, tower, named, watch(subject))


def watch(subject: Subject) -> dict[str, Outcome | None]:
    """Return the outcome of every scenario; what refuses one row is asked no further."""
    first = judged(lambda: prefill(subject))
    if first is not None and "layers differ in" in first.said:
        return together([watch(part) for part in by_shape(subject)])
    if first is not None and first.status == "refused":
        eager = replace(subject, method="eager")
        again = judged(lambda: prefill(eager)) if hands_out_patterns(subject) else None
        if again is not None and again.status != "refused":
            subject, first = eager, again
    if first is None or first.status not in ("equal", "odds"):
        return {"prefill": first}
    if first.status == "odds":
        subject = replace(subject, at_odds=True)
    batch = judged(lambda: padded_batch(subject))
    rows = 2 if batch is not None and batch.status == "equal" else 1
    return {
        "prefill": first,
        "padded": batch,
        "generated": judged(lambda: generated(subject, rows)),
        "blocked": judged(lambda: blocked(subject)),
    }


def hands_out_patterns(subject: Subject) -> bool:
    """Return whether the model, unwatched, runs when it is asked for its patterns."""
    try:
        with torch.no_grad():
            subject.caller(**subject.inputs, output_attentions=True)
    except Exception:  # a fault of the class's own
        return False
    return True


def by_shape(subject: Subject) -> list[Subject]:
    """Return a subject for each shape of pattern that a tower's layers have, as it is told to."""
    shapes: dict[Any, list[int]] = {}
    for site in find_sites(subject.model, subject.tower):
        calls = subject.truth.patterns[id(site.module)]
        shapes.setdefault(str([tuple(c.shape) for c in calls]), []).append(site.layer)
    return [replace(subject, layers=tuple(layers)) for layers in shapes.values()]


def together(parts: Sequence[dict[str, Outcome | None]]) -> dict[str, Outcome | None]:
    """Return the worst outcome of every scenario over parts of a tower."""
    rank = ("equal", "odds", "refused", "raised", "wrong")
    found: dict[str, Outcome | None] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        outcomes = [o for part in parts if (o := part.get(name)) is not None]
        worst = max(outcomes, key=lambda o: (rank.index(o.status), o.difference), default=None)
        found[name] = worst
    return found


def add(row: dict[str, Any], tower: str, named: bool, found: dict[str, Outcome | None]) -> None:
    """Write a tower's outcomes into the row as plain values."""
    outcomes = {name: o.as_dict() for name, o in found.items() if o is not None}
    row["towers"].append({"tower": tower, "named": named, "outcomes": outcomes})


def may_have(model: Any, units: Sequence[Unit], tower: str) -> bool:
    """Return whether a model of this kind may be expected to have a tower of a name."""
    given = {name for unit in units for name in unit.inputs}
    pair = bool(getattr(model.config, "is_encoder_decoder", False))
    if tower == "cross":
        calls = [c for unit in units for cs in unit.truth.patterns.values() for c in cs]
        return pair and any(c.shape[2] != c.shape[3] for c in calls)
    if pair or tower in ("encoder", "decoder"):
        return pair and tower in ("encoder", "decoder")
    if tower == "language":
        return "input_ids" in units[0].inputs
    return bool(given & (set(PICTURES) if tower == "vision" else {"input_features", *WAVES}))


def is_at_odds(row: dict[str, Any]) -> bool:
    """Return whether the model's own two ways to compute give different outputs."""
    return row.get("own_difference", 0.0) > OUTPUT_TOLERANCE
