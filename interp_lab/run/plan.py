"""`mode=plan`: what a command would do and need, before a model is loaded.

Counts are exact. Memory is an estimate and says from what: the model's from the shapes of its
weights, which take no memory for that; the result's from the parts that are finished, or from the
shapes that the analysis declares. A plan warns and refuses nothing.
"""

import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig

from interp_lab.config.nodes import allowed_for, allowed_target, build, plain
from interp_lab.errors import DeviceError, MissingInputError, UnsupportedModelError
from interp_lab.identity.checkpoints import AUTO
from interp_lab.run.fit import check_fit
from interp_lab.run.going_on import finished_now
from interp_lab.run.sweep.record import SweepJob, at_once, swept_jobs
from interp_lab.run.sweep.sharding import Share, order_of, share_of, siblings_by_hand
from interp_lab.store.rundir import RunDirectory
from interp_lab.store.sizes import declared_bytes, measured_bytes, readable


@dataclass(frozen=True)
class Work:
    """What there is to do.

    Args:
        place: the run directory.
        total: samples of the data set.
        finished: measured already.
        failed: failed before.
        jobs: how many samples each job of this command would measure.
        shares: into how many shares the samples are divided, in this command or another.
        sources: parts, and the result that would be continued.
    """

    place: Path
    total: int
    finished: int
    failed: int
    jobs: Sequence[int]
    shares: int = 1
    sources: Sequence[Path] = ()


@dataclass(frozen=True)
class Network:
    """A model by the shapes of its weights.

    Args:
        parameters: how many.
        size: bytes of parameters and buffers; weights that are used twice count once.
        lengths: how long the axes are that its configuration tells: layer, head, row, col, y, x.
        dtype: that it is loaded in.
        packing: how its weights are quantised, in words; empty if they are not.
        estimated: whether the size follows from the bits of a packed weight.
        parts: device -> bytes, where a device_map names both.
    """

    parameters: int
    size: int
    lengths: Mapping[str, int] = field(default_factory=dict)
    dtype: str = ""
    packing: str = ""
    estimated: bool = False
    parts: Mapping[str, int] = field(default_factory=dict)


def plan(cfg: DictConfig, job: SweepJob | None = None) -> str:
    """Return the plan of a command as text; empty for a job whose sibling tells it.

    Args:
        cfg: the composed configuration.
        job: its place in a sweep; jobs that share a run have one plan, which the first gives.

    Raises:
        InterpLabError: for a mistake in the configuration, or a data set that is not there.
    """
    shares = shares_of(cfg, job)
    if not shares:
        return ""
    check_fit(cfg, build(cfg, "dataset"))
    given = [f"command     {' '.join(job.overrides)}"] if job else []
    together = at_once(swept_jobs(job.folder)) if job else 1
    return "\n".join([*given, text_of(cfg, work_of(cfg, shares), together)])


def plan_arguments(arguments: Sequence[str], folder: str) -> list[str]:
    """Return a command line that plans (or looks) where it is typed and leaves nothing behind.

    Whatever launcher was chosen, it starts no jobs elsewhere; what Hydra writes goes to
    `folder`.
    """
    kept = [
        a
        for a in arguments
        if not re.match(r"[+~]*hydra[./]", a) or a.startswith("hydra.searchpath")
    ]
    return [
        *kept,
        "hydra/launcher=basic",
        "hydra/job_logging=disabled",
        "hydra/hydra_logging=disabled",
        # Else the loggers of this process stay off, for later commands too.
        "hydra.job_logging.disable_existing_loggers=false",
        "hydra.hydra_logging.disable_existing_loggers=false",
        f"hydra.run.dir={folder}",
        f"hydra.sweep.dir={folder}",
    ]


def shares_of(cfg: DictConfig, job: SweepJob | None) -> list[Share]:
    """Return the shares of all jobs that share this job's run; none if it is not their first."""
    own = share_of(cfg, job)
    if job is None or cfg.shard.index is None:
        # By the sweep's axis, every share is a job of this command.
        every = [replace(own, index=i) for i in range(own.count)]
        return [own] if job is None else every if own.index == 0 else []
    siblings = siblings_by_hand(job)
    if not siblings:
        return [own]
    first = siblings[0][0]
    return [replace(own, index=i) for _, i in siblings] if first == job.number else []


def work_of(cfg: DictConfig, shares: Sequence[Share]) -> Work:
    """Return what the jobs with these shares would find to do."""
    dataset, place = build(cfg, "dataset"), RunDirectory(cfg.output.dir)
    ids = list(dataset.ids())
    sources = place.whole_sources(move=False) if cfg.resume else []
    done = finished_now(cfg, place, dataset, sources)
    failed = {name for name in ids if done.get(name) is False}
    left = [name not in done or (cfg.retry_failed and name in failed) for name in ids]
    order = order_of(dataset, cfg.batch_size)
    jobs = [sum(left[i] for i in s.places(len(ids), cfg.batch_size, order)) for s in shares]
    finished = sum(bool(done.get(name)) for name in ids)
    return Work(place.path, len(ids), finished, len(failed), jobs, shares[0].count, sources)


def text_of(cfg: DictConfig, work: Work, together: int) -> str:
    """Return the plan of this work as text, with so many jobs at a time."""
    lines = [f"plan        {work.place}", *_counts(cfg, work)]
    warnings: list[str] = []
    network: Network | None = None
    try:
        network = network_of(cfg)
        lines.append(_model_line(network))
    except (MissingInputError, UnsupportedModelError) as error:
        lines.append(f"model       not estimated: {str(error).partition(' Cause:')[0]}")
    lines += _device(cfg, network, together, warnings)
    lines += _results(cfg, network, work, warnings)
    return "\n".join([*lines, *(f"warning: {warning}" for warning in warnings)])


def _counts(cfg: DictConfig, work: Work) -> Iterator[str]:
    left_out = "" if cfg.retry_failed else " (retry_failed=true tries them again)"
    failed = f", {work.failed} failed before{left_out}" if work.failed else ""
    todo = sum(work.jobs)
    yield f"samples     {work.total}: {work.finished} finished{failed}, {todo} to measure"
    shares = f" of {work.shares} that share them" if work.shares > 1 else ""
    yield f"jobs        {len(work.jobs)}{shares}: {_listed(work.jobs)} samples"
    parts = sum(math.ceil(n / cfg.output.part_size) for n in work.jobs)
    yield (
        f"parts       {parts} of up to {cfg.output.part_size} samples; more if these take longer "
        f"than {cfg.output.part_seconds:g} s"
    )


def _listed(counts: Sequence[int]) -> str:
    if len(counts) <= 8:
        return ", ".join(map(str, counts))
    return f"{min(counts)} to {max(counts)}"


def network_of(cfg: DictConfig) -> Network:
    """Return the model that the configuration describes, by the shapes of its weights.

    The model's class makes it, in `skeleton(weights, values)`: a module on the meta device.

    Raises:
        MissingInputError: if the checkpoint's configuration is not to be had.
        UnsupportedModelError: if the class has no `skeleton`.
    """
    from interp_lab.models.devices import check_paths, sizes_by_device
    from interp_lab.models.quantization import bits_of, full, named, packed_size
    from interp_lab.models.weights import Weights

    values = plain(cfg.model)
    target = allowed_target(values, "model", allowed_for(cfg, "model"))
    if not hasattr(target, "skeleton"):
        raise UnsupportedModelError(f"{target.__qualname__} has no `skeleton`, which would tell")
    weights = Weights.of_node(target, values)
    module = target.skeleton(weights, values)
    check_paths(module, weights.placement)
    packed = full(weights.quantization) if weights.quantization else weights.packed
    size = packed_size(module, packed)
    share = size / max(1, packed_size(module, None))
    return Network(
        sum(p.numel() for p in module.parameters()),
        size,
        axis_lengths(module.config),
        weights.dtype_name + (" (auto)" if weights.dtype == AUTO else ""),
        named(packed) if packed else "",
        bits_of(packed) is not None,
        {k: int(v * share) for k, v in sizes_by_device(module, weights.placement).items()},
    )


def axis_lengths(config: Any) -> dict[str, int]:
    """Return the lengths of axes that a transformers configuration tells."""
    text = config.get_text_config()
    vision = getattr(config, "vision_config", config)
    lengths = {
        "layer": getattr(text, "num_hidden_layers", None),
        "head": getattr(text, "num_attention_heads", None),
    }
    side, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    if isinstance(side, int) and isinstance(patch, int):
        cells = side // patch
        lengths |= {"row": cells, "col": cells, "row_edge": cells - 1, "col_edge": cells - 1}
        lengths |= {"y": side, "x": side, "channel": 3}
    return {axis: n for axis, n in lengths.items() if n is not None}


def _model_line(network: Network) -> str:
    about = "about " if network.estimated else "at most " if network.packing else ""
    packing = f", quantised ({network.packing})" if network.packing else ""
    return (
        f"model       {network.parameters:,} parameters in {network.dtype}{packing}: "
        f"{about}{readable(network.size)}; what a forward needs comes on top"
    )


def _device(
    cfg: DictConfig, network: Network | None, together: int, warnings: list[str]
) -> Iterator[str]:
    from interp_lab.models.base import resolve_device
    from interp_lab.models.devices import Placement

    values = plain(cfg.model)
    keys = ("device_map", "max_memory", "offload_folder")
    placement = Placement(*(values.get(key) for key in keys))
    try:
        device = resolve_device(cfg.device)
        rooms = _rooms(placement) if placement else {str(device): free_memory(device)}
    except DeviceError as error:
        yield f"device      {error}"
        return
    needed = dict(network.parts) if network else {}
    for name, free in rooms.items():
        said = "its free memory is not known" if free is None else f"{readable(free)} free"
        yield f"device      {name}: {said}{_used(needed.get(name))}"
    if network is None or None in rooms.values():
        return
    # Without a map of each part only the sum is known; the words share the parts out by room.
    for name, size in (needed or {", ".join(rooms): network.size}).items():
        free = rooms[name] if name in rooms else sum(free or 0 for free in rooms.values())
        alone = device.type == "cpu" and not placement
        warnings += _tight(name, size, free or 0, together if alone else 1)


def _used(size: int | None) -> str:
    return "" if size is None else f", {readable(size)} of weights"


def _tight(name: str, size: int, free: int, together: int) -> Iterator[str]:
    """Yield what to warn of, if weights do not fit into the free memory of their devices."""
    if size > free:
        yield (
            f"the weights alone need {readable(size)} and {name} has {readable(free)} "
            "free; take a smaller model.dtype, model.quantization, device_map=auto or another "
            "device"
        )
    elif size * together > free:
        yield (
            f"{together} jobs at once on {name} need {readable(size * together)} for "
            f"weights and it has {readable(free)} free; run fewer (hydra.launcher.n_jobs)"
        )


def _rooms(placement: Any) -> dict[str, int | None]:
    """Return the free bytes of each device that parts of a model may lie on, by its name.

    Raises:
        DeviceError: if one is not on this machine.
    """
    from interp_lab.models.devices import DISK

    placement.check_there()
    rooms: dict[str, int | None] = {}
    bounds = placement.bounds()
    for place in placement.devices():
        free = free_memory(place)
        rooms[str(place)] = None if free is None else min(free, bounds.get(str(place), free))
    if placement.offload_folder:
        folder = Path(placement.offload_folder).expanduser().absolute()
        there = next(p for p in (folder, *folder.parents) if p.exists())
        rooms[DISK] = shutil.disk_usage(there).free
    return rooms


def free_memory(device: Any) -> int | None:
    """Return the bytes that are free on a torch device, or None if it does not tell."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu":
        return psutil.virtual_memory().available
    return None


def _results(
    cfg: DictConfig, network: Network | None, work: Work, warnings: list[str]
) -> Iterator[str]:
    measured, samples = measured_bytes(work.sources)
    at_least = ""
    if samples:
        each, how = measured, f"measured on {samples} finished samples"
    else:
        analysis = build(cfg, "analysis", seed=cfg.seed, batch_size=cfg.batch_size)
        lengths = network.lengths if network else {}
        each, known, unknown = declared_bytes(analysis.fields, lengths)
        how = f"from the shapes of {len(known)} declared fields"
        if not analysis.fields:
            at_least, how = "at least ", "the model decides on the fields; unknown as yet"
        if unknown:
            at_least = "at least "
            how += f"; unknown until the first part: {', '.join(unknown)}"
    held = each * min(cfg.output.part_size, max(work.jobs, default=0))
    todo = sum(work.jobs)
    result = each * (work.finished + todo)
    yield f"fields      {at_least}{readable(each)} a sample ({how})"
    yield f"            {at_least}{readable(held)} wait in memory for their part"
    yield f"result      {at_least}{readable(result)}"
    folder = next(p for p in (work.place, *work.place.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    yield f"disk        {readable(free)} free at {folder}"
    # While they are merged, parts and the new result lie side by side.
    needed = each * todo + result
    if needed > free:
        warnings.append(
            f"parts and result need {at_least}{readable(needed)} and {folder} has {readable(free)} "
            "free; choose another output.root"
        )
