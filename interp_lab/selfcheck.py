"""Checks that a run makes of itself: the model sees its input, and the numbers are eager's.

Both are made on the first samples (`capture.live_check`, `capture.verify`); what they found is
stored with the result.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from interp_lab.capture.checks import MODALITY_KEYS, live_check, verify, verify_steps
from interp_lab.capture.plans import AttentionPlan, Plan
from interp_lab.capture.session import Capture
from interp_lab.errors import UnsupportedModelError
from interp_lab.models.base import LoadedModel, Prepared, WritingModel

log = logging.getLogger(__name__)
# Two correct kernels differ by rounding, which grows over the layers. Beyond these differences of a
# pattern's values something is wrong, and a wrong number is worse than a crash.
LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


class SelfCheck:
    """Makes the checks that are due and keeps what they found.

    Args:
        model: the model.
        live: check once that the output depends on the images and the audio.
        verify: `first`, `all` or `off`: recompute captured numbers with eager attention.
    """

    def __init__(self, model: LoadedModel, live: bool, verify: str) -> None:
        self.model = model
        self.found: dict[str, dict[str, float]] = {}
        self._live = live
        self._verify = verify

    def __call__(
        self,
        prepared: Prepared,
        plans: Sequence[Mapping[str, Plan]],
        capture: Capture,
        outputs: Sequence[Any],
    ) -> None:
        """Check a batch that was just measured.

        Args:
            prepared, plans, capture: what went in, what was watched, what was captured.
            outputs: what the model returned, one a row.

        Raises:
            UnsupportedModelError: if the model does not see its input, or the numbers differ.
        """
        if self._live:
            self._live = False
            self._check_live(prepared)
        attention = [
            {k: p for k, p in row.items() if isinstance(p, AttentionPlan)} for row in plans
        ]
        # Eager attention is the unchanged model's; under an intervention nothing equals it.
        if self._verify == "off" or not any(attention) or capture.changed:
            return
        if self._verify == "first":
            self._verify = "off"
        self._check_numbers(prepared, attention, capture)
        if isinstance(self.model, WritingModel):
            self._check_steps(self.model, prepared, attention, capture, outputs)

    def _check_live(self, prepared: Prepared) -> None:
        for modality, keys in MODALITY_KEYS.items():
            if any(key in prepared.inputs for key in keys):
                change = live_check(self.model.forward, prepared.inputs, modality)
                self.found.setdefault("live_check", {})[modality] = change

    def _check_numbers(
        self,
        prepared: Prepared,
        plans: Sequence[Mapping[str, AttentionPlan]],
        capture: Capture,
    ) -> None:
        differences = verify(
            lambda: self.model.forward(prepared.inputs),
            self.model.module,
            plans,
            capture.rows,
            attention_mask=prepared.inputs.get("attention_mask"),
        )
        self._judge(differences)

    def _check_steps(
        self,
        model: WritingModel,
        prepared: Prepared,
        plans: Sequence[Mapping[str, AttentionPlan]],
        capture: Capture,
        outputs: Sequence[Any],
    ) -> None:
        """Check decode steps: the prompt and what was written after it, read in one forward."""
        inputs, n_read = model.continued(prepared.inputs, outputs)
        if not n_read or not any(p.when == "decode" for row in plans for p in row.values()):
            return
        differences = verify_steps(
            lambda: model.forward(inputs),
            model.module,
            plans,
            capture.rows,
            inputs["attention_mask"],
            n_read,
        )
        self._judge(differences)

    def _judge(self, differences: Mapping[str, float]) -> None:
        worst = self.found.setdefault("verify", {})
        for name, value in differences.items():
            worst[name] = max(worst.get(name, 0.0), value)
        largest = max(differences.values(), default=0.0)
        log.info("captured numbers equal eager attention's to %.1e", largest)
        dtype = next(self.model.module.parameters()).dtype
        if largest > LARGEST_DIFFERENCE.get(dtype, 0.1):
            raise UnsupportedModelError(
                f"capture.verify: captured numbers differ from eager attention's by {largest:.1e} "
                f"({dtype}); use capture.method=eager and report this model"
            )
