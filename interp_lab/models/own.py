"""Any torch network of the user's own, watched and changed without a line of adapter code.

Its YAML names the class and its arguments, a checkpoint, which facts of a sample go into which
argument of its forward, and where its gates are. The network itself is left as it is.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from interp_lab.config.nodes import target_of
from interp_lab.config.targets import ALLOW, OWN, Importable
from interp_lab.datasets.base import Sample, existing_path
from interp_lab.errors import ConfigError, SampleError, UnsupportedModelError, did_you_mean
from interp_lab.models.base import GateHooks, Prepared, Seen, gate_hooks
from interp_lab.models.files import cause_of, is_out_of_memory
from interp_lab.models.loading import seeded
from interp_lab.models.moment_tokens import moment_tokens
from interp_lab.models.qd_detr.checkpoint import (
    load_plain,
    load_safetensors,
    load_strictly,
    weights_of,
)
from interp_lab.models.qd_detr.model import PreparedMoments, prediction, truth_of
from interp_lab.models.weights import dtype_of
from interp_lab.tokens import TokenMap

MASK = "_mask"


class OwnModule:
    """A network of the user's own on a device.

    Its inputs are facts of a sample that are arrays, by the names of its forward's arguments; an
    argument `<name>_mask` gets the mask of `<name>`, 1 = valid. Arrays of a batch are padded along
    their first axis. A sample's output is its `Moments` where the network puts out `pred_logits`,
    `pred_spans` and `saliency_scores` as QD-DETR does, or what `read` makes of the output; else the
    sample's row of the output as it is.

    Args:
        module: `_target_` of the network's class, and its arguments.
        device: where the network goes.
        checkpoint: a file of `torch.save` or `.safetensors` with its weights, under `model` or
            `state_dict`, or alone; null for the weights that the class makes.
        inputs: argument -> name of the fact, where they differ.
        gates: gate kind -> hookpoints (patterns of module paths) and nonlinearity.
        audio_gates: the kinds through which audio enters: at 0 its content is gone.
        prepare: dotted path of a function of samples that returns the forward's arguments; null
            for the facts.
        read: dotted path of a function of the network's output and the samples' `Truth`s that
            returns one `Moments` a sample; null to go by the output.
        dtype: float32, float16 or bfloat16.
        seed: of the weights that the class makes.

    Raises:
        ConfigError: if the class cannot be imported or made, or an argument has no fact.
        MissingInputError: if the checkpoint is not there, or damaged.
        UnsupportedModelError: if the weights do not fill the network exactly.
    """

    def __init__(
        self,
        module: dict[str, Any],
        device: torch.device,
        checkpoint: str | None = None,
        inputs: dict[str, str] | None = None,
        gates: dict[str, Any] | None = None,
        audio_gates: list[str] | None = None,
        prepare: Importable | None = None,
        read: Importable | None = None,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        self._dtype = dtype_of(dtype)
        self.device = device
        self.notes: list[str] = []
        self.gates: Mapping[str, GateHooks] = gate_hooks(gates or {}, audio_gates or [])
        self.audio_gates = tuple(audio_gates or [])
        network = _built(module, seed, device)
        if checkpoint is None:
            self.notes.append("no model.checkpoint: the weights are as the class makes them")
        else:
            where = f"model.checkpoint={checkpoint}"
            load_strictly(network, _weights(checkpoint, where), where)
        self.module = network.to(device, self._dtype).eval().requires_grad_(False)
        self._inputs = _arguments(network, inputs or {})
        self._prepare = _function("model.prepare", prepare)
        self._read = _function("model.read", read)
        self.hookpoints = {name: name for name, _ in network.named_modules() if name}

    def prepare(self, samples: Sequence[Sample]) -> PreparedMoments:
        """Return the samples' facts as one padded batch.

        Raises:
            SampleError: if a fact that the network needs is missing.
        """
        if self._prepare is not None:
            inputs = {k: self._placed(v) for k, v in self._prepare(samples).items()}
        else:
            inputs = self._from_facts(samples)
        seen = tuple(Seen(_tokens(sample)) for sample in samples)
        # A data set of another kind has no moments, and none are looked for.
        known = all({"video", "duration", "clip_seconds"} <= s.facts.keys() for s in samples)
        truths = tuple(truth_of(s, self.device) for s in samples) if known else ()
        return PreparedMoments(inputs, seen, truths)

    def run(self, prepared: Prepared) -> Sequence[Any]:
        """Return each sample's `Moments`, or its row of the output."""
        output = self.module(**prepared.inputs)
        truths = prepared.truths if isinstance(prepared, PreparedMoments) else ()
        if self._read is not None:
            return list(self._read(output, truths))
        if _predicts_moments(output) and truths:
            return [prediction(output, row, truth) for row, truth in enumerate(truths)]
        return [_row(output, row) for row in range(len(prepared.seen))]

    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return all floating-point numbers of each sample's output in one row."""
        tensors = [t for t in _tensors(self.module(**inputs)) if t.is_floating_point() and t.ndim]
        if not tensors:
            raise UnsupportedModelError(f"{type(self.module).__name__}: puts out no numbers")
        return torch.cat([t.flatten(1) if t.ndim > 1 else t[:, None] for t in tensors], dim=1)

    def _from_facts(self, samples: Sequence[Sample]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        for argument, (fact, needed) in self._inputs.items():
            arrays = [sample.facts.get(fact) for sample in samples]
            lacking = [s for s, a in zip(samples, arrays, strict=True) if a is None]
            if lacking and not needed:
                continue
            if lacking:
                known = [k for k, v in lacking[0].facts.items() if isinstance(v, np.ndarray)]
                raise SampleError(
                    f"{lacking[0].id}: no {fact!r} for the network's argument {argument!r}; name "
                    f"one of {', '.join(known)} in model.inputs.{did_you_mean(fact, known)}"
                )
            rows = [torch.from_numpy(np.asarray(a)) for a in arrays]
            batch[argument] = self._placed(pad_sequence(rows, batch_first=True))
            mask = pad_sequence([torch.ones(len(r)) for r in rows], batch_first=True)
            if self._takes(argument + MASK):
                batch[argument + MASK] = mask.to(self.device)
        return batch

    def _takes(self, argument: str) -> bool:
        return argument in inspect.signature(self.module.forward).parameters

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.device, self._dtype if value.is_floating_point() else value.dtype)


def _built(module: Mapping[str, Any], seed: int, device: torch.device) -> nn.Module:
    target = target_of(module, "model.module")
    is_network = isinstance(target, type) and issubclass(target, nn.Module)
    if str(module["_target_"]).startswith(OWN) and not is_network:
        raise ConfigError(f"model.module: {module['_target_']} is no torch.nn.Module")
    arguments = {k: v for k, v in module.items() if k not in ("_target_", ALLOW)}
    try:
        with seeded(seed, device):
            network = target(**arguments)
    except Exception as error:  # the user's own code: any type at all
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"model.module: {module['_target_']} cannot be made ({cause_of(error)}); "
            "HYDRA_FULL_ERROR=1 shows where"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model.module: {module['_target_']} makes no torch.nn.Module")
    return network


def _weights(checkpoint: str, where: str) -> dict[str, Tensor]:
    path: Path = existing_path("model.checkpoint", checkpoint)
    if path.suffix == ".safetensors":
        return weights_of(load_safetensors(path, where), where)
    return weights_of(load_plain(path, where), where)


def _arguments(network: nn.Module, inputs: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
    """Return argument -> (fact, whether the network needs it); masks are made, not looked up."""
    parameters = inspect.signature(network.forward).parameters
    unknown = sorted(set(inputs) - set(parameters))
    if unknown:
        raise ConfigError(
            f"model.inputs.{unknown[0]}: {type(network).__name__}.forward takes "
            f"{', '.join(parameters)}.{did_you_mean(unknown[0], parameters)}"
        )
    return {
        name: (inputs.get(name, name), name in inputs or p.default is inspect.Parameter.empty)
        for name, p in parameters.items()
        if not name.endswith(MASK) and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def _function(key: str, path: str | None) -> Callable[..., Any] | None:
    return None if path is None else target_of({"_target_": path}, key)


def _tokens(sample: Sample) -> TokenMap:
    known = all(name in sample.facts for name in ("query", "text", "video", "clip_seconds"))
    return moment_tokens(sample) if known else TokenMap(())


def _predicts_moments(output: Any) -> bool:
    names = ("pred_logits", "pred_spans", "saliency_scores")
    return isinstance(output, Mapping) and all(name in output for name in names)


def _row(output: Any, row: int) -> Any:
    if isinstance(output, Tensor):
        return output[row]
    if isinstance(output, Mapping):
        return {k: _row(v, row) for k, v in output.items()}
    if isinstance(output, list | tuple):
        return [_row(v, row) for v in output]
    return output


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output
    if isinstance(values, Mapping | list | tuple) or isinstance(output, Mapping):
        return [t for value in values for t in _tensors(value)]
    return []
