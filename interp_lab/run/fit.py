"""What fits together, told before a model is loaded, by what the parts state of themselves.

A data set states what goes into a model (`gives`: text, image, audio, video) and which facts every
sample has (`knows`), and may name the format that it asks in (`conversation`); a model class what
it reads and needs, and the formats that it knows (`conversations`); an analysis, numbers and the
figures of a visualization what they need. Whatever states nothing, such as a class of the user's
own, is not held to it, and one that does is held to the same rule as ours. No part knows another's
name.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from importlib import import_module
from typing import Any

import yaml
from omegaconf import DictConfig

from interp_lab.config.nodes import build, check_arguments, conf_dir, node_name, plain, target_of
from interp_lab.datasets.base import stated_prompts
from interp_lab.errors import ConfigError
from interp_lab.models.lacks import unfit


def check_fit(cfg: DictConfig, dataset: Any) -> None:
    """Check that model, data set, analysis, numbers and figures fit together.

    Raises:
        ConfigError: for samples that the model or the analysis cannot use, numbers or figures of
            fields that the analysis does not measure; says what to choose instead.
        UnsupportedModelError: from the analysis, for a model that can give nothing of it.
    """
    stated_prompts(dataset)
    analysis = build(cfg, "analysis", seed=cfg.seed, batch_size=cfg.batch_size)
    values = plain(cfg.model)
    model = target_of(values, "model")
    check_arguments(model, values, "model")
    check_model(analysis, model)
    _check_facts(cfg, dataset, analysis, model)
    _check_inputs(cfg, dataset, analysis, model)
    _check_conversation(cfg, dataset, model)
    measured = [f.name for f in analysis.fields] + list(getattr(analysis, "measures", ()))
    if not measured:  # the model decides, and it is not there yet
        return
    where = f"{type(analysis).__name__} does not measure"
    check_needs("numbers", _needs(build(cfg, "numbers", seed=cfg.seed)), measured, where)
    check_needs("visualization", needs_of_figures(cfg), measured, where)


def check_model(analysis: Any, kind: type) -> None:
    """Refuse a class of models that states that it lacks what an analysis asks of it.

    Raises:
        UnsupportedModelError: names what it lacks.
        ConfigError: from the analysis, for an option that does not go with this class.
    """
    lacks = stated(kind, "lacks") or ()
    for word in stated(analysis, "asks") or ():
        if word in lacks:
            raise unfit(kind, word)
    if hasattr(analysis, "check_model"):
        analysis.check_model(kind)


def needs_of_figures(cfg: DictConfig) -> Sequence[str]:
    """Return the fields that a visualization's figures cannot do without, as its YAML says."""
    needs = plain(cfg.visualization).get("needs") or ()
    return [needs] if isinstance(needs, str) else list(needs)


def check_needs(node: str, needs: Iterable[str], there: Iterable[str], where: str) -> None:
    """Check that fields are there.

    Args:
        node: whose needs they are.
        needs: names of fields; `gate_*` is any that begins so.
        there: the names that there are, or such patterns of them.
        where: who should have them, as `NAME does not measure`.

    Raises:
        ConfigError: names what is missing.
    """
    names = list(there)
    missing = [n for n in needs if not any(n == name or fnmatch(name, n) for name in names)]
    if missing:
        raise ConfigError(
            f"{node}: is made of {', '.join(missing)}, which {where}; choose the {node}=... of "
            "this study, or leave it out"
        )


def check_numbers(numbers: Any, there: Iterable[str], path: object) -> None:
    """Check that a result holds what numbers are made of; see `check_needs`."""
    check_needs("numbers", _needs(numbers), there, f"{path} does not hold")


def _check_facts(cfg: DictConfig, dataset: Any, analysis: Any, model: Any) -> None:
    given, known = stated(dataset, "gives"), stated(dataset, "knows")
    if given is None and known is None:
        return
    there = {*(given or ()), *(known or ())}
    needs = [*_needs(analysis), *_needs(model)]
    missing = [name for name in _needs(analysis) if name not in there]
    if missing:
        raise ConfigError(
            f"dataset={node_name(cfg, 'dataset')}: its samples have no {', '.join(missing)}, which "
            f"{type(analysis).__name__} needs{_such_as(needs, stated(model, 'reads'))}"
        )


def _check_inputs(cfg: DictConfig, dataset: Any, analysis: Any, model: Any) -> None:
    given, read = stated(dataset, "gives"), stated(model, "reads")
    if given is None or read is None:
        return
    needs = [*_needs(analysis), *_needs(model)]
    name, own = node_name(cfg, "dataset"), f"model={node_name(cfg, 'model')} ({model.__name__})"
    dropped = [kind for kind in given if kind not in read]
    if dropped:
        raise ConfigError(
            f"dataset={name}: its samples hold {' and '.join(dropped)}, and {own} reads "
            f"{' and '.join(read)} alone; choose a model that reads {' and '.join(given)}"
            f"{_such_as(needs, read, 'or a data set')}"
        )
    missing = [kind for kind in _needs(model) if kind not in given]
    if missing:
        raise ConfigError(
            f"dataset={name}: its samples have no {', '.join(missing)}, which {own} needs"
            f"{_such_as(needs, read)}"
        )


def _check_conversation(cfg: DictConfig, dataset: Any, model: Any) -> None:
    """Refuse a format that the model would not be asked in: its numbers would be another's."""
    asked, known = getattr(dataset, "conversation", None), stated(model, "conversations")
    if isinstance(asked, str) and known is not None and asked not in known:
        raise ConfigError(
            f"dataset.conv_mode={asked}: model={node_name(cfg, 'model')} ({model.__name__}) is not "
            f"asked in this format; give dataset.conv_mode={' or '.join(known)}"
        )


def _needs(part: Any) -> Sequence[str]:
    return stated(part, "needs") or ()


def stated(part: Any, name: str) -> Sequence[str] | None:
    """Return what a part states, or None; a method or a number of that name is something else."""
    value = getattr(part, name, None)
    return value if isinstance(value, tuple | list) else None


def _such_as(needs: Sequence[str], read: Sequence[str] | None, what: str = "a data set") -> str:
    """Return the remedy: which of the package's data sets would do."""
    found = []
    for path in sorted((conf_dir() / "dataset").glob("*.yaml")):
        target = str(yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"])
        module, _, name = target.rpartition(".")
        kind = getattr(import_module(module), name)
        gives, knows = stated(kind, "gives") or (), stated(kind, "knows") or ()
        if set(needs) <= {*gives, *knows} and (read is None or set(gives) <= set(read)):
            found.append(path.stem)
    if not found:
        return ""
    joint = f", {what}" if what.startswith("or") else f"; choose {what}"
    return f"{joint} such as dataset={' or dataset='.join(found)}"
