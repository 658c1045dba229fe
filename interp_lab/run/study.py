"""The pipeline, in reading order: compose, load, measure, merge, export, draw.

The wing with torch is imported inside `work.measure` alone, so that drawing a result again or
listing it needs neither torch nor transformers; matplotlib is imported where it draws, because
listing and planning should be quick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from interp_lab.capture.roles import check_interventions
from interp_lab.config.nodes import (
    allowed_for,
    allowed_target,
    build,
    check_arguments,
    check_root,
    plain,
    target_of,
)
from interp_lab.config.schema import Mode
from interp_lab.config.targets import (
    KINDS,
    OWN,
    allowed_by,
    check_node,
    check_target,
    check_targets,
    defined_here,
)
from interp_lab.errors import ConfigError, FinishedWithFailuresError, StoreError
from interp_lab.identity.run import NOT_IN_RUN_ID
from interp_lab.libraries.hydra_inside import parsed
from interp_lab.run.effects import (
    check_effects,
    check_figure_options,
    check_sample_figures,
    follow_references,
)
from interp_lab.run.fit import check_needs, needs_of_figures
from interp_lab.run.merging import merge_by_hand
from interp_lab.run.numbers import compute_again, differ, stored_config
from interp_lab.run.sweep.record import SweepJob
from interp_lab.run.work import command_of, work_on
from interp_lab.store.places import safe_name
from interp_lab.store.results import open_results
from interp_lab.store.rundir import RunDirectory
from interp_lab.store.summary import summary

# The nodes that a stored number depends on.
MEASURED = ("model", "dataset", "analysis")


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Args:
        results: path of the result; None if another job makes it.
        measured: samples in it, or those that this job measured.
        failed: samples that could not be measured.
        figures: the files that were drawn.
        missing: samples that nobody has measured yet.
    """

    results: Path | None
    measured: int
    failed: int
    figures: tuple[Path, ...] = ()
    missing: int = 0

    def complain(self) -> None:
        """Raise for samples that failed or are missing.

        Raises:
            FinishedWithFailuresError: with how many, and what lists them.
        """
        if self.missing:
            raise FinishedWithFailuresError(
                f"{self.measured} samples merged, {self.missing} not measured yet; the command of "
                "the run goes on with them"
            )
        if self.failed:
            place = self.results or "..., once the last job has merged,"
            raise FinishedWithFailuresError(
                f"{self.measured} samples measured, {self.failed} failed; "
                f"mode=summary results={place} lists them"
            )


def run_study(
    cfg: DictConfig, overrides: list[str] | None = None, job: SweepJob | None = None
) -> Outcome:
    """Do what the configuration says: measure, plan, merge, compute, draw, list, or look around.

    Args:
        cfg: the composed configuration.
        job: what this is in a sweep; None outside of one.
        overrides: what the user typed; `mode=render` applies it to the style that is stored.

    Raises:
        InterpLabError: one line that says what is wrong, where, and what to do.
    """
    check_root(cfg)
    check_effects(cfg, overrides or [])
    if cfg.mode == Mode.run:
        return measure_study(cfg, job, overrides or [])
    if cfg.mode == Mode.plan:
        # A plan needs what the machine has free, which nothing else here does.
        from interp_lab.run.plan import plan

        text = plan(cfg, job)
        print(text) if text else None
        return Outcome(None, 0, 0)
    if cfg.mode == Mode.models:
        from interp_lab.run.pairing import pairs

        print(pairs(cfg).table())
        return Outcome(None, 0, 0)
    if cfg.mode == Mode.doctor:
        examine(cfg, overrides or [])
        return Outcome(None, 0, 0)
    if cfg.mode == Mode.merge:
        return merge_study(cfg, job, overrides or [])
    path = Path(cfg.results) if cfg.results else RunDirectory(cfg.output.dir).results
    if path.is_dir():
        path = RunDirectory(path).results
    if path.suffix.lstrip(".") in cfg.importers:
        return draw_study(cfg, imported(cfg, path), overrides or [])
    with open_results(path) as results:
        if cfg.mode == Mode.summary:
            print(summary(results))
            return Outcome(results.path, len(results), len(results.failures))
        stored = stored_config(results.attributes["config"], cfg)
        path = results.path
    wanted = restyled(stored, cfg, overrides or [])
    # What a result stores is data: the command alone says what may be imported for it.
    wanted.allow_targets, wanted.importers = cfg.allow_targets, cfg.importers
    check_targets(wanted)
    if cfg.mode == Mode.compute or differ(wanted, path):
        compute_again(wanted, path)
    return draw_study(wanted, path, overrides or [])


def measure_study(cfg: DictConfig, job: SweepJob | None, overrides: Sequence[str] = ()) -> Outcome:
    """Measure what is left of this job's share; draw the result, if this job made it."""
    check_sample_figures(style_of(cfg, overrides)[1], overrides)
    check_interventions(plain(cfg.capture)["interventions"])
    done = work_on(cfg, job)
    if not done.last:
        return Outcome(None, done.measured, done.failed)
    if differ(cfg, done.place.results):
        with done.place.held():
            compute_again(cfg, done.place.results)
    return draw_study(cfg, done.place.results, overrides)


def merge_study(cfg: DictConfig, job: SweepJob | None, overrides: Sequence[str] = ()) -> Outcome:
    """Merge by hand what is finished, and draw it."""
    if cfg.results:
        raise ConfigError("results: mode=merge takes the command of the run instead, with its keys")
    style_of(cfg, overrides)
    place = RunDirectory(cfg.output.dir)
    with place.held():
        missing = merge_by_hand(cfg, place, build(cfg, "dataset"), command_of(job))
    return replace(draw_study(cfg, place.results, overrides), missing=missing)


def draw_study(cfg: DictConfig, path: Path, overrides: Sequence[str] = ()) -> Outcome:
    """Draw a result as the visualization node says, and as the command was typed."""
    from interp_lab.visualization.draw import draw_all

    style, figures = style_of(cfg, overrides)
    allowed = allowed_for(cfg, "visualization")
    with open_results(path) as results:
        needs = needs_of_figures(cfg)
        check_needs("visualization", needs, results.fields, f"{path} does not hold")
    folder = path.parent / "figures" / (style.name or "")
    drawn = draw_all(path, figures, style, folder, plain(cfg.select), allowed)
    with open_results(path) as results:
        return Outcome(path, len(results), len(results.failures), tuple(drawn))


def style_of(cfg: DictConfig, overrides: Sequence[str] = ()) -> tuple[Any, dict[str, Any]]:
    """Return the style and the figures of the visualization node, every value checked.

    Args:
        cfg: the configuration.
        overrides: what was typed; samples that it chooses have no limit that it does not give.

    Raises:
        ConfigError: for a value that could only fail later.
    """
    from interp_lab.visualization.base import Style
    from interp_lab.visualization.draw import check_figures
    from interp_lab.visualization.select import unlimited

    values = plain(cfg.visualization)
    allowed = allowed_for(cfg, "visualization")
    figures = values.pop("figures", None)
    figures = {} if figures is None else figures
    values.pop("needs", None)
    if not isinstance(figures, Mapping):
        raise ConfigError(
            f"visualization.figures={figures}: give nodes by name, or null for no figure"
        )
    check_node(values, "visualization", "visualization", allowed)
    target = target_of(values, "visualization")
    if not (isinstance(target, type) and issubclass(target, Style)):
        raise ConfigError(f"visualization._target_={values['_target_']}: is no Style")
    style = target(**check_arguments(target, values, "visualization", allowed))
    check_figures(figures, allowed)
    check_figure_options(figures, overrides)
    if figures:
        style = unlimited(style, plain(cfg.select), [o.key for o in parsed(list(overrides))])
    return style, dict(figures)


def imported(cfg: DictConfig, path: Path) -> Path:
    """Make a result of a file of another tool, as the task's `importers` say; return its path."""
    if not path.is_file():
        raise StoreError(f"results={path}: no such file")
    suffix = path.suffix.lstrip(".")
    key, named = f"importers.{suffix}", cfg.importers[suffix]
    check_target(named, key, KINDS["importers"], allowed_by(cfg))
    importer: Any = target_of({"_target_": named}, key)
    if not callable(importer) or (named.startswith(OWN) and not defined_here(importer)):
        raise ConfigError(f"{key}={named}: is no importer")
    # Files of one name from several folders stay apart by the hash of their path.
    place = safe_name(f"{path.absolute()}")[-6:]
    folder = Path(cfg.output.root) / cfg.task_name / f"imported-{path.stem}-{place}"
    folder.mkdir(parents=True, exist_ok=True)
    made = importer(path, folder)
    if not isinstance(made, Path):
        raise ConfigError(f"{key}={named}: returned {type(made).__name__}, not the result's path")
    return made


def restyled(stored: DictConfig, composed: DictConfig, overrides: list[str]) -> DictConfig:
    """Return the configuration that a result is drawn with again.

    It is the one that is stored with the result, changed by what the user typed below
    `visualization`, `select` and `numbers`; a whole `visualization=` or `experiment=` replaces it.
    """
    typed = parsed(overrides)
    if any(o.key in ("visualization", "experiment") for o in typed):
        stored.visualization = composed.visualization
        return stored
    for override in typed:
        key = override.key
        node, _, option = key.partition(".")
        # Without `results` these keys say which run is meant; what they cannot do is change it.
        if option and node in MEASURED and (composed.results or option in NOT_IN_RUN_ID[node]):
            raise ConfigError(
                f"{override.text}: what was measured is stored and cannot be changed here; give "
                "visualization.KEY, select.KEY or numbers.KEY, or measure anew with mode=run"
            )
        if not key.startswith(("visualization.", "select.", "numbers.")):
            continue
        if override.deletes:
            raise ConfigError(f"{override.text}: set {key}=null instead of deleting it")
        OmegaConf.update(stored, key, override.value, force_add=True)
        follow_references(stored, key, {o.key for o in typed})
    return stored


def examine(cfg: DictConfig, overrides: list[str]) -> None:
    """Check this machine, or the checkpoint that the command names, if its class can do that."""
    from interp_lab.doctor.checkup import report, report_on_model

    if any(o.key.partition(".")[0] == "model" for o in parsed(overrides)):
        values = plain(cfg.model)
        kind = allowed_target(values, "model", allowed_for(cfg, "model"))
        if hasattr(kind, "examine"):
            check_arguments(kind, values, "model", allowed_for(cfg, "model"))
            report_on_model(kind, values, as_json=cfg.doctor.json)
            return
    report(Path(cfg.output.root), as_json=cfg.doctor.json)
