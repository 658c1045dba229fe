"""Tracking gates from Python: `track_gates(module, ...)` around inference code of one's own.

The numbers, files and figures are those of `task=avigate`: a tracker writes a result as the study
does, and the study's own statistics, exports and figures are made of it.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import nn

from interp_lab.capture.gates import watch_gates
from interp_lab.capture.plans import GatePlan
from interp_lab.config.nodes import build, conf_dir
from interp_lab.errors import ConfigError, MissingInputError, did_you_mean
from interp_lab.models.base import GatedModel, GateHooks, resolve_device
from interp_lab.studies.avigate.exports import by_layer
from interp_lab.studies.avigate.gate_statistics import describe
from interp_lab.studies.avigate.gates import canonical, layer_paths
from interp_lab.studies.avigate.tracking_files import (
    Tracked,
    save_all,
    save_comparison,
    save_sample,
    write_results,
)
from interp_lab.studies.avigate.tracking_methods import install as install_on
from interp_lab.studies.avigate.tracking_methods import tracker_on, uninstall

NEAR_ZERO = 0.05


class GateTracker:
    """Keeps the gates of every sample that a network runs on, while tracking is enabled.

    Args:
        module: any torch network; nothing about it is changed, and no hook is left on it when
            tracking is disabled.
        gates: kind such as "attention" or "ffn" -> patterns of the modules that put out gates.
        nonlinearity: "tanh" or "sigmoid" if these modules put out logits, None if gates; one for
            all kinds, or kind -> name.
        near_zero: the largest |g| that counts as zero.
        seed: of bootstrap intervals.

    Attributes:
        gate_history: sample id -> `<kind>_gates` -> one (clip, channel) array a layer.
        track_gates: whether tracking is enabled.
        current_sample_id: the ids of the next forward's rows.
        handles: of the hooks that are on the module now.

    Raises:
        UnsupportedModelError: if a pattern matches no module.
    """

    def __init__(
        self,
        module: nn.Module,
        gates: Mapping[str, Sequence[str] | str],
        nonlinearity: str | Mapping[str, str | None] | None = None,
        near_zero: float = NEAR_ZERO,
        seed: int = 0,
    ) -> None:
        if not gates:
            raise ConfigError("track_gates: gates is empty; name kinds and their modules")
        self.module = module
        self.near_zero = near_zero
        self.seed = seed
        self.track_gates = False
        self.current_sample_id: tuple[str, ...] = ()
        self.gate_history: dict[str, dict[str, list[np.ndarray]]] = {}
        hooks = {k: GateHooks(_patterns(p), _of(nonlinearity, k)) for k, p in gates.items()}
        self.paths = layer_paths(module, hooks)
        self._plans = {k: GatePlan(self.paths[k], h.nonlinearity) for k, h in hooks.items()}
        self.handles: list[Any] = []
        self._installed_on: list[nn.Module] = []
        self._watching: ExitStack | None = None
        self._rows: list[dict[str, dict[str, torch.Tensor]]] = []

    def __enter__(self) -> "GateTracker":
        self.enable_gate_tracking()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disable_gate_tracking()

    def install(self, on: nn.Module | None = None) -> None:
        """Put the tracker's methods on a module, by default the one that it tracks.

        Then `module.enable_gate_tracking()` and the others work, and `GateAnalyzer(module)`. State
        dict, forward, copies and pickles of the module are as they were.

        Raises:
            ConfigError: if the module has something of such a name.
        """
        place = self.module if on is None else on
        install_on(place, self)
        self._installed_on.append(place)

    def uninstall(self) -> None:
        """Take the methods off again."""
        while self._installed_on:
            uninstall(self._installed_on.pop())

    def enable_gate_tracking(self) -> None:
        """Keep the gates of every forward of the module from now on."""
        if not self.track_gates:
            before = self.module.register_forward_pre_hook(self._before, prepend=True)
            after = self.module.register_forward_hook(self._after, always_call=True)
            self.handles = [before, after]
            self.track_gates = True

    def disable_gate_tracking(self) -> None:
        """Leave the network as it was; what was kept stays."""
        self._stop_watching()
        for handle in self.handles:
            handle.remove()
        self.handles = []
        self.track_gates = False

    def set_current_sample_id(self, sample_id: str | int | Sequence[str | int]) -> None:
        """Say which sample the next forward is about, or which its rows are."""
        one = isinstance(sample_id, str | int)
        ids = (sample_id,) if one else tuple(sample_id)
        self.current_sample_id = tuple(str(name) for name in ids)
        if len(set(self.current_sample_id)) < len(ids):
            raise ConfigError("set_current_sample_id: the ids of a batch must differ")

    def _before(self, module: nn.Module, inputs: Any) -> None:
        self._stop_watching()
        self._rows = []
        if not self.current_sample_id:
            raise ConfigError("gate tracking is on: call set_current_sample_id before the forward")
        self._watching = ExitStack()
        for paths in self.paths.values():
            for path in paths:
                handle = module.get_submodule(path).register_forward_hook(self._check_rows)
                self._watching.callback(handle.remove)
        plans = [self._plans for _ in self.current_sample_id]
        self._rows = self._watching.enter_context(watch_gates(module, plans))

    def _check_rows(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        rows, ids = len(output), len(self.current_sample_id)
        if rows != ids:
            raise ConfigError(
                f"gate tracking: the batch has {rows} samples and set_current_sample_id named "
                f"{ids}; give one id a sample"
            )

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the samples; after a forward that failed there is nothing whole to keep."""
        self._stop_watching()
        whole = all(
            len(row[kind]) == len(paths) for row in self._rows for kind, paths in self.paths.items()
        )
        if output is None and not whole:
            return
        for sample, row in zip(self.current_sample_id, self._rows, strict=True):
            self.gate_history[sample] = {
                f"{kind}_gates": list(canonical(row[kind], paths, None, sample))
                for kind, paths in self.paths.items()
            }

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.close()
            self._watching = None

    def get_gate_statistics(self, sample_id: str | int | None = None) -> dict[str, Any]:
        """Return statistics by kind, `overall` and by `layers`, of one sample or of all.

        They are those of overall_statistics.json (`analyses.gates_statistics.describe`).

        Raises:
            ConfigError: if no sample, or not this one, was tracked.
        """
        chosen = self._known(list(self.gate_history) if sample_id is None else [sample_id])
        found: dict[str, Any] = {"n_samples": len(chosen), "gates": {}}
        for kind in self.paths:
            blocks = [
                self._stacked(name, kind).reshape(len(self.paths[kind]), -1) for name in chosen
            ]
            numbers = describe(lambda held=blocks: iter(held), self.near_zero)
            found["gates"][kind] = {
                "overall": {name: float(values[-1]) for name, values in numbers.items()},
                "layers": by_layer({name: values[:-1] for name, values in numbers.items()}),
            }
        return found

    def print_gate_summary(self) -> None:
        """Print mean, spread, |g| and signs of each kind and layer."""
        statistics = self.get_gate_statistics()
        print(f"{statistics['n_samples']} samples")
        for kind, found in statistics["gates"].items():
            first = f"{kind} gates: layer"
            print(f"{first}    mean    std    |g|  positive  negative  near zero")
            for row in [*found["layers"], {"layer": "all", **found["overall"]}]:
                print(
                    f"{row['layer']:>{len(first)}}  {row['mean']:>+.3f}  {row['std']:.3f}  "
                    f"{row['magnitude']:.3f}  {row['share_positive']:>8.0%}  "
                    f"{row['share_negative']:>8.0%}  {row['share_near_zero']:>9.0%}"
                )

    def save_gate_analysis(self, folder: str | Path, sample_id: str | int) -> list[Path]:
        """Write <id>_details.json and gate_analysis_<id>.png of one sample; return their paths."""
        return save_sample(self._data([sample_id]), Path(folder))

    def compare_samples_gates(self, ids: Sequence[str | int], folder: str | Path) -> Path:
        """Draw gate_comparison.png of at least 2 samples, in this order; return its path."""
        if len(ids) < 2:
            raise ConfigError("compare_samples_gates: give at least 2 samples")
        return save_comparison(self._data(ids), Path(folder))

    def write_results(self, path: str | Path) -> Path:
        """Write what was tracked as a result that `open_results` and `mode=render` read."""
        return write_results(self._data(list(self.gate_history)), Path(path))

    def analyze(self, folder: str | Path, *, save_raw: bool = False, max_samples: int = -1) -> Path:
        """Write all that the study writes of gates into a folder; return the report's path."""
        data = self._data(list(self.gate_history))
        return save_all(data, Path(folder), save_raw=save_raw, max_samples=max_samples)

    def _data(self, ids: Sequence[str | int]) -> Tracked:
        names = self._known(ids)
        gates = {name: {kind: self._stacked(name, kind) for kind in self.paths} for name in names}
        return Tracked(type(self.module).__name__, gates, self.near_zero, self.seed)

    def _stacked(self, sample: str, kind: str) -> np.ndarray:
        return np.stack(self.gate_history[sample][f"{kind}_gates"])

    def _known(self, ids: Sequence[str | int]) -> list[str]:
        names = [str(name) for name in ids]
        if not names:
            raise ConfigError("no sample was tracked: enable tracking, name the sample, run it")
        for name in names:
            if name not in self.gate_history:
                near = did_you_mean(name, self.gate_history)
                raise ConfigError(f"no sample {name!r} was tracked.{near}")
        return names


class GateAnalyzer:
    """Writes everything that `task=avigate` writes of gates, for the samples of a tracker.

    Args:
        tracker: it, or a module that its methods were installed on.

    Raises:
        ConfigError: for a module without a tracker's methods.
    """

    def __init__(self, tracker: GateTracker | nn.Module) -> None:
        self.tracker: GateTracker = (
            tracker if isinstance(tracker, GateTracker) else tracker_on(tracker)
        )

    def analyze_all_samples(
        self, folder: str | Path, *, save_raw: bool = False, max_samples: int = -1
    ) -> Path:
        """Write results.h5, statistics, figures, samples, comparison and report into a folder.

        Args:
            folder: where; made if it is not there.
            save_raw: also write raw_data/.
            max_samples: how many samples get figures of their own; -1 = all.

        Returns:
            The report's path.

        Raises:
            ConfigError: if no sample was tracked.
        """
        return self.tracker.analyze(folder, save_raw=save_raw, max_samples=max_samples)


def track_gates(
    module: nn.Module,
    gates: Mapping[str, Sequence[str] | str],
    nonlinearity: str | Mapping[str, str | None] | None = None,
    near_zero: float = NEAR_ZERO,
    install: bool = False,
) -> GateTracker:
    """Return a tracker of any network's gates; it is off until enabled.

    Args:
        module, gates, nonlinearity, near_zero: see `GateTracker`.
        install: put its methods on the module too; see `GateTracker.install`.

    Raises:
        InterpLabError: if a pattern matches no module, or the module has such a method already.
    """
    tracker = GateTracker(module, gates, nonlinearity, near_zero)
    if install:
        tracker.install()
    return tracker


def load_traced(
    checkpoint: str | Path,
    model: str = "qd_detr_avigate",
    device: int | str | None = None,
    install: bool = False,
    **options: Any,
) -> GateTracker:
    """Load a trained checkpoint and return a tracker of its gates; the network is its `module`.

    No weight is changed or left out.

    Args:
        checkpoint: the file.
        model: an option of the `model` group, or the path of a YAML of one's own; it names the
            class and the gates.
        device: null = best available.
        install: put the tracker's methods on the network's fusion, `tracker.module.avigate_fusion`
            (of a network without one, on the network); see `GateTracker.install`.
        options: other keys of that YAML, such as gating_type.

    Raises:
        InterpLabError: what the command line says of such a model, in one line.
    """
    path = Path(model) if model.endswith((".yaml", ".yml")) else conf_dir() / f"model/{model}.yaml"
    if not path.is_file():
        known = [p.stem for p in (conf_dir() / "model").glob("*.yaml")]
        raise MissingInputError(f"model={model}: no such option.{did_you_mean(model, known)}")
    cfg = OmegaConf.create({"model": OmegaConf.load(path)})
    OmegaConf.update(cfg, "model", {"checkpoint": str(checkpoint), **options}, force_add=True)
    loaded = build(cfg, "model", device=resolve_device(device), seed=0)
    if not isinstance(loaded, GatedModel):
        raise ConfigError(f"model={model}: {type(loaded).__name__} names no gates")
    tracker = GateTracker(
        loaded.module,
        {kind: hooks.hookpoints for kind, hooks in loaded.gates.items()},
        {kind: hooks.nonlinearity for kind, hooks in loaded.gates.items()},
    )
    if install:
        tracker.install(getattr(loaded.module, "avigate_fusion", None))
    return tracker


def _patterns(patterns: Sequence[str] | str) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _of(value: str | Mapping[str, str | None] | None, kind: str) -> str | None:
    return value.get(kind) if isinstance(value, Mapping) else value
