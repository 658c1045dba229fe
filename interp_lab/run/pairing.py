"""Which study runs with which model (`mode=models`), from the YAMLs and the classes, not loaded.

A study says what it asks of a model and what it needs of a sample, a model class what it reads,
needs and lacks, a data set class what it gives. What cannot be told of a class, such as whether a
checkpoint's answers are single tokens, `mode=plan` or the run says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from interp_lab.config.nodes import allowed_for, allowed_target, build, conf_dir, plain
from interp_lab.errors import ConfigError, InterpLabError, UnsupportedModelError
from interp_lab.libraries.hydra_inside import composed, config_folders, own_settings
from interp_lab.run.fit import check_model, stated

# Kinds of input; the other needs of a study are facts about a sample.
INPUTS = ("text", "image", "audio", "video")


@dataclass(frozen=True)
class Pairs:
    """What fits together.

    Args:
        studies: the tasks, in order.
        models: name -> what it reads, as text.
        cells: (model, task) -> empty if they fit, else what is missing.
        unknown: models whose class could not be had -> why.
    """

    studies: tuple[str, ...]
    models: Mapping[str, str]
    cells: Mapping[tuple[str, str], str]
    unknown: Mapping[str, str]

    def table(self) -> str:
        """Return the pairs as text: a row a model, a column a task."""
        rows = [("model", "reads", *self.studies)]
        rows += [
            (name, read, *(self.cells[name, study] or "yes" for study in self.studies))
            for name, read in self.models.items()
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        lines += [f"{name}: {why}" for name, why in self.unknown.items()]
        lines.append("any other: model=vlm, audio_lm, vision_tower, text with model.checkpoint=ID")
        return "\n".join(line.rstrip() for line in lines)


def pairs(cfg: DictConfig) -> Pairs:
    """Return which tasks run with which models, of the package and of the user's own YAMLs.

    Args:
        cfg: the composed configuration; its `allow_targets` says what may be imported.
    """
    folders = list(dict.fromkeys([conf_dir(), *config_folders(own_settings())]))
    datasets = [kind for _, kind, _ in _classes(cfg, "dataset", folders) if kind is not None]
    # The tasks are composed last: Hydra composes one configuration at a time in a process.
    found = list(_classes(cfg, "model", folders))
    studies = {task: _study(cfg, task) for task, _ in _files("task", folders)}
    models = {name: kind for name, kind, _ in found if kind is not None}
    return Pairs(
        tuple(studies),
        {name: " ".join(_listed(kind, "reads")) or "-" for name, kind in models.items()},
        {
            (name, task): _missing(analysis, kind, [own, *datasets])
            for name, kind in models.items()
            for task, (analysis, own) in studies.items()
        },
        {name: why for name, kind, why in found if kind is None},
    )


def _files(group: str, folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield (name, file) of a group's YAMLs; of two with one name, the package's."""
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            files.setdefault(path.stem, path)
    yield from files.items()


def _classes(
    cfg: DictConfig, group: str, folders: Sequence[Path]
) -> Iterator[tuple[str, type | None, str]]:
    """Yield (name, class, why there is none) of a group's YAMLs."""
    allowed = allowed_for(cfg, group)
    for name, path in _files(group, folders):
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            if "_target_" not in values:  # it stands on another file of the group
                values = plain(composed(conf_dir(), [f"{group}={name}"])[group])
            yield name, allowed_target(values, group, allowed), ""
        except InterpLabError as error:
            yield name, None, str(error)


def _study(cfg: DictConfig, task: str) -> tuple[Any, type]:
    """Return a task's analysis, and the class of its own data set."""
    given = composed(conf_dir(), [f"task={task}"])
    given.allow_targets = cfg.allow_targets
    analysis = build(given, "analysis", seed=given.seed, batch_size=given.batch_size)
    return analysis, allowed_target(plain(given.dataset), "dataset", allowed_for(given, "dataset"))


def _missing(analysis: Any, kind: type, datasets: Sequence[type]) -> str:
    """Return what a model's class lacks for an analysis; empty if they fit.

    Args:
        datasets: classes; what is said to be missing is what the first that suits gives.
    """
    try:
        check_model(analysis, kind)
    except UnsupportedModelError:
        lacks = [word for word in _listed(analysis, "asks") if word in _listed(kind, "lacks")]
        return f"no {' or '.join(lacks)}" if lacks else "no"
    except ConfigError:
        return "other options"
    needs, reads = set(_listed(analysis, "needs")), set(_listed(kind, "reads"))
    own = set(_listed(kind, "needs"))
    suited = [
        set(gives)
        for data in datasets
        for gives in (_listed(data, "gives"), *_listed(data, "or_gives"))
        if needs <= {*gives, *_listed(data, "knows")}
    ]
    if not reads or any(gives <= reads and own <= gives for gives in suited):
        return ""
    unread = next((gives - reads for gives in suited if gives - reads), own)
    return f"no {' or '.join(w for w in INPUTS if w in unread)}"


def _listed(part: Any, name: str) -> Sequence[str]:
    return stated(part, name) or ()
