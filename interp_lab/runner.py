"""The pipeline, in reading order: compose, load, measure, merge, export, draw.

The wing with torch is imported inside `measure_study` alone, so that drawing a result again or
listing it needs neither torch nor transformers.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from interp_lab.capture.roles import check_interventions
from interp_lab.config import (
    NOT_IN_RUN_ID,
    Mode,
    build,
    check_arguments,
    check_root,
    node_name,
    plain,
    run_id,
    target_of,
)
from interp_lab.errors import ConfigError, StoppedByUserError, StoreError, TooManyFailuresError
from interp_lab.progress import Progress
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, finished_samples, list_parts
from interp_lab.store.places import safe_name
from interp_lab.store.provenance import now, provenance
from interp_lab.store.results import open_results
from interp_lab.store.rundir import RunDirectory
from interp_lab.summary import summary
from interp_lab.visualization.draw import check_figures, draw_all

log = logging.getLogger(__name__)
# The nodes that a stored number depends on.
MEASURED = ("model", "dataset", "analysis")


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Args:
        results: path of the result.
        measured: samples in it.
        failed: samples that could not be measured.
        figures: the files that were drawn.
    """

    results: Path
    measured: int
    failed: int
    figures: tuple[Path, ...] = ()


def run_study(cfg: DictConfig, overrides: list[str] | None = None) -> Outcome:
    """Do what the configuration says: measure, draw again, or list.

    Args:
        cfg: the composed configuration.
        overrides: what the user typed; `mode=render` applies it to the style that is stored.

    Raises:
        InterpLabError: one line that says what is wrong, where, and what to do.
    """
    check_root(cfg)
    if cfg.mode == Mode.run:
        return measure_study(cfg)
    path = Path(cfg.results) if cfg.results else RunDirectory(cfg.output.dir).results
    if path.suffix.lstrip(".") in cfg.importers:
        return draw_study(cfg, imported(cfg, path))
    with open_results(path) as results:
        if cfg.mode == Mode.summary:
            print(summary(results))
            return Outcome(results.path, len(results), len(results.failures))
        stored = cast(DictConfig, OmegaConf.create(results.attributes["config"]))
        path = results.path
    return draw_study(restyled(stored, cfg, overrides or []), path)


def measure_study(cfg: DictConfig) -> Outcome:
    """Measure what is left to measure, make the result, and draw it."""
    style_of(cfg)
    check_interventions(plain(cfg.capture)["interventions"])
    dataset = build(cfg, "dataset")
    ids = list(dataset.ids())
    place = RunDirectory(cfg.output.dir)
    with place.locked():
        if not cfg.resume:
            place.clear_parts()
        done = finished_samples(place.sources(cfg.resume))
        todo = [i for i, name in enumerate(ids) if cfg.retry_failed or name not in done]
        todo = [i for i in todo if not done.get(ids[i])]
        if done:
            log.info(
                "%d of %d samples were measured before; going on", len(ids) - len(todo), len(ids)
            )
        if todo or not place.results.exists() or list_parts(place.parts):
            measure(cfg, place, dataset, ids, todo)
    return draw_study(cfg, place.results)


def measure(
    cfg: DictConfig, place: RunDirectory, dataset: Any, ids: list[str], todo: list[int]
) -> None:
    """Load the model, measure the samples in `todo`, and write the result."""
    from interp_lab.measure import Measurement
    from interp_lab.models.base import resolve_device
    from interp_lab.selfcheck import SelfCheck

    started = now()
    analysis = build(cfg, "analysis", seed=cfg.seed, batch_size=cfg.batch_size)
    model = build(cfg, "model", device=resolve_device(cfg.device), seed=cfg.seed)
    notes = [*model.notes, *analysis.check(model)]
    for note in notes:
        log.warning(note)
    settings = plain(cfg.capture)
    check = SelfCheck(model, settings["live_check"], settings["verify"])
    writer = PartWriter(place.parts, analysis.fields, cfg.output.part_size, cfg.output.part_seconds)
    with Progress(len(ids), len(ids) - len(todo)) as progress:
        measurement = Measurement(
            model,
            dataset,
            analysis,
            writer,
            progress,
            cfg.batch_size,
            cfg.max_failed_share,
            check,
            settings["method"],
            settings["interventions"],
        )
        if not measurement.run(todo):
            raise StoppedByUserError(
                f"stopped with {progress.done} of {len(ids)} samples finished; "
                "the same command goes on"
            )
    attributes = {
        "definitions": json.dumps(dict(analysis.definitions)),
        "notes": json.dumps(notes),
        "device": str(model.device),
        "capture": json.dumps({**measurement.paths, "interventions": settings["interventions"]}),
        "checks": json.dumps(check.found),
        "counts": json.dumps(dict(dataset.counts())),
        "started": started,
        "finished": now(),
    }
    conclude(cfg, place, ids, analysis, attributes)


def conclude(
    cfg: DictConfig, place: RunDirectory, ids: list[str], analysis: Any, attributes: dict[str, str]
) -> None:
    """Merge the parts into the result, and write the exports.

    Raises:
        TooManyFailuresError: if no sample could be measured.
    """
    sources = place.sources(cfg.resume)
    if not any(finished_samples(sources).values()):
        raise TooManyFailuresError(f"none of {len(ids)} samples could be measured; see the log")
    config = OmegaConf.to_yaml(cfg, resolve=True)
    identity = {
        "task_name": cfg.task_name,
        "model": node_name(cfg, "model"),
        "dataset": node_name(cfg, "dataset"),
        "run_id": run_id(cfg),
        "config": config,
    }
    merge(sources, ids, place.results, identity | attributes | provenance(), analysis.compute)
    if cfg.output.exports:
        place.exports.mkdir(exist_ok=True)
        (place.exports / "config.yaml").write_text(config, encoding="utf-8")
        with open_results(place.results) as results:
            analysis.export(results, place.exports)
    place.clear_parts()


def draw_study(cfg: DictConfig, path: Path) -> Outcome:
    """Draw a result as the visualization node says."""
    style, figures = style_of(cfg)
    drawn = draw_all(path, figures, style, path.parent / "figures", plain(cfg.select))
    with open_results(path) as results:
        return Outcome(path, len(results), len(results.failures), tuple(drawn))


def style_of(cfg: DictConfig) -> tuple[Any, dict[str, Any]]:
    """Return the style and the figures of the visualization node, every value checked.

    Raises:
        ConfigError: for a value that could only fail later.
    """
    values = plain(cfg.visualization)
    figures = values.pop("figures", None) or {}
    target = target_of(values, "visualization")
    style = target(**check_arguments(target, values, "visualization"))
    check_figures(figures)
    return style, figures


def imported(cfg: DictConfig, path: Path) -> Path:
    """Make a result of a file of another tool, as the task's `importers` say; return its path."""
    if not path.is_file():
        raise StoreError(f"results={path}: no such file")
    suffix = path.suffix.lstrip(".")
    importer = target_of({"_target_": cfg.importers[suffix]}, f"importers.{suffix}")
    # Files of one name from several folders stay apart by the hash of their path.
    place = safe_name(f"{path.absolute()}")[-6:]
    folder = Path(cfg.output.root) / cfg.task_name / f"imported-{path.stem}-{place}"
    folder.mkdir(parents=True, exist_ok=True)
    return importer(path, folder)


def restyled(stored: DictConfig, composed: DictConfig, overrides: list[str]) -> DictConfig:
    """Return the configuration that a result is drawn with again.

    It is the one that is stored with the result, changed by what the user typed below
    `visualization` and `select`; a whole `visualization=` or `experiment=` replaces it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(overrides)
    if any(o.key_or_group in ("visualization", "experiment") for o in parsed):
        stored.visualization = composed.visualization
        return stored
    for override in parsed:
        key = override.key_or_group
        node, _, option = key.partition(".")
        # Without `results` these keys say which run is meant; what they cannot do is change it.
        if option and node in MEASURED and (composed.results or option in NOT_IN_RUN_ID[node]):
            raise ConfigError(
                f"{override.input_line}: mode=render draws numbers that are stored; give "
                "visualization.KEY or select.KEY, or measure anew with mode=run"
            )
        if not key.startswith(("visualization.", "select.")):
            continue
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: set {key}=null instead of deleting it")
        OmegaConf.update(stored, key, override.value(), force_add=True)
    return stored
