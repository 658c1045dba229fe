"""Checks that a run makes of itself: the model sees its input, and the numbers are right.

Made on the first batch, or on every one. What they found is stored with the result:
- `live_check`: the output depends on the images and the audio.
- `verify`: captured numbers against float64 arithmetic on the same queries and keys; `verify_bound`
  is what fp32 arithmetic explains. Beyond it the run stops.
- `kernel_output`: by how much the kernel's output differs from that pattern times the values.
- `eager_difference`: how far the model's eager forward is from the one that was captured. This is
  the model's own sensitivity to rounding, large in half precision, and never stops a run.
"""

import logging
import math
from collections.abc import Mapping, Sequence

from accelerate.utils.memory import should_reduce_batch_size

from interp_lab.capture.checks import MODALITY_KEYS, eager_difference, live_check
from interp_lab.capture.findings import Finding
from interp_lab.capture.plans import AttentionPlan, Plan
from interp_lab.capture.reference import Reference
from interp_lab.capture.session import Capture
from interp_lab.errors import InterpLabError, NotFiniteError, UnsupportedModelError
from interp_lab.models.base import LoadedModel, Prepared
from interp_lab.models.loading import inputs_dtype

log = logging.getLogger(__name__)
# Numbers of one layer's eager pattern; beyond it a few query rows stand for all.
LARGEST_PATTERN = 2**28
ROWS_INSTEAD = 64


class SelfCheck:
    """Makes the checks that are due and keeps what they found.

    Args:
        model: the model.
        live: check once that the output depends on the images and the audio.
        verify: `first`, `all` or `off`: work captured numbers out again in float64.

    Attributes:
        found: check -> what it is of -> the worst figure, or a text why there is none.
    """

    def __init__(self, model: LoadedModel, live: bool, verify: str) -> None:
        self.model = model
        self.found: dict[str, dict[str, float | str]] = {}
        self._live = live
        self._verify = verify

    def reference(
        self, prepared: Prepared, plans: Sequence[Mapping[str, Plan]], changed: bool, method: str
    ) -> Reference | None:
        """Return what is to watch the next batch beside the capture; None if nothing is due.

        Args:
            prepared, plans: what goes in, what is watched.
            changed: whether interventions change the pattern, which then is not softmax(q k).
            method: of the capture; "eager" takes the model's own pattern as it is.
        """
        attention = _attention(plans)
        if self._verify == "off" or changed or method == "eager" or not any(attention):
            return None
        return Reference(attention, prepared.inputs.get("attention_mask"))

    def __call__(
        self,
        prepared: Prepared,
        plans: Sequence[Mapping[str, Plan]],
        capture: Capture,
        reference: Reference | None,
    ) -> None:
        """Check a batch that was just measured.

        Args:
            prepared, plans, capture: what went in, what was watched, what was captured.
            reference: what watched beside the capture.

        Raises:
            UnsupportedModelError: if the model does not see its input, or the numbers differ.
            NotFiniteError: if what the model computes of this batch is NaN.
        """
        if self._live:
            self._check_live(prepared)
            self._live = False
        if reference is None:
            return
        findings = reference.findings(capture.rows)
        for name, why in reference.unverified.items():
            self.found.setdefault("verify", {})[name] = f"not verified: {why}"
            log.warning("capture.verify: %s was not verified (%s)", name, why)
        self._judge(findings)
        self._note_eager_difference(prepared, _attention(plans), capture)
        # Not before: a sample whose numbers are none has verified nothing.
        if self._verify == "first":
            self._verify = "off"

    def _check_live(self, prepared: Prepared) -> None:
        for modality, keys in MODALITY_KEYS.items():
            if any(key in prepared.inputs for key in keys):
                change = live_check(self.model.forward, prepared.inputs, modality)
                self.found.setdefault("live_check", {})[modality] = change

    def _judge(self, findings: Mapping[str, Finding]) -> None:
        for name, found in findings.items():
            self._keep("verify", name, found.difference)
            self._keep("verify_bound", name, found.bound)
            self._keep("kernel_output", name, found.output)
            if not math.isfinite(found.output):
                raise NotFiniteError(f"{name}: the output of its attention holds NaN or infinity")
            if not found.holds:
                raise UnsupportedModelError(_complaint(name, found))
        if findings:
            largest = max(found.difference for found in findings.values())
            log.info("captured numbers equal float64 arithmetic's to %.1e", largest)

    def _note_eager_difference(
        self,
        prepared: Prepared,
        plans: Sequence[Mapping[str, AttentionPlan]],
        capture: Capture,
    ) -> None:
        """Note how far eager attention is from what was captured of the prompt."""
        ids = prepared.inputs.get("input_ids")
        large = ids is not None and _n_heads(self.model) * ids.shape[-1] ** 2 > LARGEST_PATTERN
        prompt = [{n: p for n, p in row.items() if p.when == "prefill"} for row in plans]
        chosen = [{n: p for n, p in row.items() if not large or p.queries} for row in prompt]
        names = {n for row in prompt for n in row}
        differences: dict[str, float | str] = dict.fromkeys(names, "not measured: size")
        try:
            differences |= eager_difference(
                lambda: self.model.forward(prepared.inputs),
                self.model.module,
                chosen,
                capture.rows,
                query_rows=ROWS_INSTEAD if large else None,
                attention_mask=prepared.inputs.get("attention_mask"),
            )
        except InterpLabError as error:  # a model may have no eager attention
            differences = dict.fromkeys(names, f"not measured: {error}")
        except Exception as error:
            if not should_reduce_batch_size(error):
                raise
            differences = dict.fromkeys(names, "not measured: memory")
        for name, value in differences.items():
            self._keep("eager_difference", name, value)
            if isinstance(value, float) and value > 0.01:
                dtype = inputs_dtype(self.model.module)
                log.info(
                    "%s: the model's eager attention differs from its fused one by %.1e in %s; "
                    "the captured numbers are the fused one's",
                    name,
                    value,
                    dtype,
                )

    def _keep(self, check: str, name: str, value: float | str) -> None:
        kept = self.found.setdefault(check, {})
        before = kept.get(name)
        both = isinstance(before, float) and isinstance(value, float)
        kept[name] = max(before, value) if both else value  # pyright: ignore


def _n_heads(model: LoadedModel) -> int:
    return getattr(model, "n_heads", 16)


def _attention(plans: Sequence[Mapping[str, Plan]]) -> list[dict[str, AttentionPlan]]:
    return [{k: p for k, p in row.items() if isinstance(p, AttentionPlan)} for row in plans]


def _complaint(name: str, found: Finding) -> str:
    report = "do not use these numbers; run mode=doctor and report its output with this model"
    if found.output > found.output_bound:
        return (
            f"capture.verify: {name}: the attention kernel's output is off by {found.output:.1e} "
            f"of the largest value from softmax(q k) v as capture understands it (bound "
            f"{found.output_bound:.1e}): a mask or scale is not what it seems; {report}"
        )
    if math.isinf(found.difference):
        return (
            f"capture.verify: {name}: what was captured has other steps, queries or keys than the "
            f"model's calls, or numbers that are none; {report}"
        )
    return (
        f"capture.verify: {name}: captured numbers differ by {found.difference:.1e} from float64 "
        f"arithmetic on the same queries and keys (bound {found.bound:.1e}); {report}"
    )
