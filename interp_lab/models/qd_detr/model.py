"""QD-DETR with gated audio, loaded: a checkpoint of the origin's layout, or one of the zoo."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from interp_lab.datasets.base import Sample
from interp_lab.datasets.streams import check_duration, common_length
from interp_lab.errors import ConfigError, SampleError
from interp_lab.models.base import GateHooks, Prepared, Seen, gate_hooks
from interp_lab.models.loading import seeded
from interp_lab.models.moment_tokens import moment_tokens
from interp_lab.models.moments import Moments
from interp_lab.models.qd_detr.checkpoint import (
    assumptions,
    load_network,
    read_checkpoint,
    untrained_encoder,
)
from interp_lab.models.qd_detr.criterion import Target, moment_loss, to_centres, to_edges
from interp_lab.models.qd_detr.examine import Line, examine
from interp_lab.models.qd_detr.network import FOREGROUND, Architecture, QdDetrNetwork
from interp_lab.models.weights import Weights, dtype_of

# CLIP text; SlowFast, CLIP and time; PANN and time. For random weights without an architecture.
PUBLISHED_WIDTHS = {"t_feat_dim": 512, "v_feat_dim": 2818, "a_feat_dim": 2050}
# Argument of the network -> fact of a sample.
FACTS = {"txt": "text", "vid": "video", "aud": "audio"}


@dataclass(frozen=True)
class Truth:
    """What turns a row of predictions into seconds and says what is right.

    Args:
        duration: of the video, seconds.
        n_clips: valid clips.
        target: the moments that fit, or None if the data set does not say.
    """

    duration: float
    n_clips: int
    target: Target | None


@dataclass(frozen=True)
class PreparedMoments(Prepared):
    """A batch of videos and queries; `truths` has one a sample."""

    truths: tuple[Truth, ...] = ()


class QdDetr:
    """A QD-DETR with gated audio on a device.

    A sample's output is its `Moments`; their loss is `qd_detr_criterion.moment_loss` of the last
    decoder layer, without auxiliary and saliency terms. Spans are not rounded to clips, which the
    published evaluation does.

    Args:
        checkpoint: a training checkpoint, a file of weights, or `zoo:<name>`.
        device: where the network goes.
        gating_type: of the fusion, where the checkpoint does not say it; must not differ from what
            it says.
        dtype: float32, float16 or bfloat16.
        masked: whether means over time leave out padding. False is the origin's behaviour, in
            which a global gate depends on what else is in the batch.
        init: `pretrained`, or `random` for the published sizes with random weights.
        architecture: values of `Architecture` that the checkpoint lacks; for `init: random` those
            that differ from the published ones.
        gates: gate kind -> hookpoints (patterns of module paths) and nonlinearity.
        audio_gates: the kinds through which audio enters: at 0 its content is gone.
        seed: of random weights.

    Raises:
        ConfigError: for values that do not fit together.
        MissingInputError: if the checkpoint is not there, or damaged.
        UnsupportedModelError: if its weights do not fill the network exactly.
    """

    reads = ("text", "video")
    needs = ("text", "video")
    lacks = ("answers", "hidden states")

    def __init__(
        self,
        checkpoint: str,
        device: torch.device,
        gating_type: Literal["global", "clipwise", "elementwise", "paper"] | None = None,
        dtype: str = "float32",
        masked: bool = True,
        init: str = "pretrained",
        architecture: dict[str, Any] | None = None,
        gates: dict[str, Any] | None = None,
        audio_gates: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        weights = Weights(checkpoint, None, dtype, init)
        torch_dtype = dtype_of(dtype)
        self.device = device
        self.notes: list[str] = []
        self.gates: Mapping[str, GateHooks] = gate_hooks(gates or {}, audio_gates or [])
        self.audio_gates = tuple(audio_gates or [])
        self.masked = masked
        if weights.init == "random":
            network = _random(gating_type, architecture or {}, masked, seed)
            self.notes.append("RANDOM WEIGHTS: the architecture is real, the numbers mean nothing")
        else:
            found = read_checkpoint(checkpoint)
            network = load_network(found, gating_type, architecture, masked)
            self.notes += assumptions(found, architecture or {})
            if untrained_encoder(network):
                self.notes.append(
                    f"{found.where}: its video encoder was never trained; if it was trained with a "
                    "fork that leaves this encoder out, these predictions are not that fork's"
                )
        if not masked:
            self.notes.append("masked: false; a global gate depends on padding when batch_size > 1")
        self.module: QdDetrNetwork = network.to(device, torch_dtype)
        self.module.eval().requires_grad_(False)
        self.hookpoints: dict[str, str] = _hookpoints(self.module)

    @staticmethod
    def examine(values: Mapping[str, Any]) -> Iterator[Line]:
        """Yield what a checkpoint is and whether it can be traced, without a run: `mode=doctor`."""
        return examine(values)

    def prepare(self, samples: Sequence[Sample]) -> PreparedMoments:
        """Return padded features and masks, 1 = valid, with one token a word and one a clip.

        Raises:
            SampleError: if a feature is missing or of another width than the network takes, or
                video and audio are not of the same clips.
        """
        for sample in samples:
            _check_clips(sample)
        dtype = next(self.module.parameters()).dtype
        inputs: dict[str, Any] = {}
        for name, fact in FACTS.items():
            tables = [self._table(sample, name, fact) for sample in samples]
            padded = pad_sequence(tables, batch_first=True)
            mask = pad_sequence([torch.ones(len(t)) for t in tables], batch_first=True)
            inputs[f"src_{name}"] = padded.to(self.device, dtype)
            inputs[f"src_{name}_mask"] = mask.to(self.device)
        return PreparedMoments(
            inputs,
            tuple(Seen(moment_tokens(sample)) for sample in samples),
            tuple(truth_of(sample, self.device) for sample in samples),
        )

    def run(self, prepared: Prepared) -> Sequence[Moments]:
        """Return each sample's moments.

        Raises:
            ConfigError: if the batch was not prepared by this model.
        """
        if not isinstance(prepared, PreparedMoments):
            raise ConfigError("QdDetr.run: takes what QdDetr.prepare returned")
        outputs = self.module(**prepared.inputs)
        return [prediction(outputs, row, truth) for row, truth in enumerate(prepared.truths)]

    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return logits, spans and saliency of each sample in one row, (batch, numbers)."""
        outputs = self.module(**inputs)
        names = ("pred_logits", "pred_spans", "saliency_scores")
        return torch.cat([outputs[name].flatten(1) for name in names], dim=1)

    def _table(self, sample: Sample, name: str, fact: str) -> Tensor:
        table = sample.facts.get(fact)
        if table is None:
            raise SampleError(f"{sample.id}: no {fact} features; this network needs them")
        expected = getattr(self.module.architecture, f"{name[0]}_feat_dim")
        if table.shape[1] != expected:
            raise SampleError(
                f"{sample.id}: {fact} features have {table.shape[1]} columns, the network takes "
                f"{expected}; check the feature folders and dataset.ctx_mode (it adds 2 columns to "
                "video and audio)"
            )
        return torch.from_numpy(np.asarray(table, np.float32))


def _check_clips(sample: Sample) -> None:
    tables = [sample.facts.get(name) for name in ("video", "audio")]
    lengths = [len(table) for table in tables if table is not None]
    if len(set(lengths)) > 1:
        raise SampleError(
            f"{sample.id}: {lengths[0]} clips of video and {lengths[1]} of audio; the network "
            "pairs them by their number"
        )


def _random(
    gating_type: str | None, architecture: Mapping[str, Any], masked: bool, seed: int
) -> QdDetrNetwork:
    given = {**PUBLISHED_WIDTHS, **architecture}
    given["gating_type"] = gating_type or given.get("gating_type", "global")
    with seeded(seed, torch.device("cpu")):
        return QdDetrNetwork(Architecture.of(given, "model.init=random"), masked)


def _hookpoints(network: QdDetrNetwork) -> dict[str, str]:
    groups = {
        "fusion": "fusion.fusion_layers",
        "t2v": "transformer.t2v_encoder.layers",
        "encoder": "transformer.encoder.layers",
        "decoder": "transformer.decoder.layers",
    }
    return {
        f"{name}.{i}": f"{path}.{i}"
        for name, path in groups.items()
        for i in range(len(network.get_submodule(path)))  # pyright: ignore[reportArgumentType]
    }


def truth_of(sample: Sample, device: torch.device) -> Truth:
    """Return a sample's duration and clips, and the moments that fit if they are known.

    Raises:
        SampleError: if video, audio, saliency and duration are not of the same clips.
    """
    facts = sample.facts
    n_clips = len(facts["video"])
    streams = {name: facts.get(name) for name in ("video", "audio", "saliency")}
    common_length({f"{sample.id}: {k}": len(v) for k, v in streams.items() if v is not None})
    check_duration(n_clips, facts["duration"], facts["clip_seconds"])
    windows = facts.get("windows")
    target = None
    if windows is not None:
        # As published: moments are measured in clips for the loss, and in seconds of the whole
        # video for the prediction.
        edges = torch.from_numpy(np.asarray(windows, np.float32)) / (
            n_clips * facts["clip_seconds"]
        )
        target = Target(to_centres(edges).to(device))
    return Truth(float(facts["duration"]), n_clips, target)


def prediction(outputs: Mapping[str, Any], row: int, truth: Truth) -> Moments:
    """Return what the network's outputs say of one row of the batch."""
    own = {name: outputs[name][row : row + 1].float() for name in ("pred_logits", "pred_spans")}
    loss = None if truth.target is None else float(moment_loss(own, [truth.target]))
    scores = own["pred_logits"][0].softmax(-1)[:, FOREGROUND]
    order = scores.argsort(descending=True, stable=True)
    seconds = (to_edges(own["pred_spans"][0]) * truth.duration).clamp(0, truth.duration)
    return Moments(
        seconds[order].cpu().numpy(),
        scores[order].cpu().numpy(),
        outputs["saliency_scores"][row, : truth.n_clips].float().cpu().numpy(),
        loss,
    )
