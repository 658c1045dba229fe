"""An option that would do nothing is refused: who typed it believes that it did something.

Some options count only beside another one, some only where figures are drawn, some only where
samples are measured. Others are read by a figure's node through a reference, which a stored
configuration no longer has; there the reference is followed again.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from interp_lab.config.nodes import conf_dir, plain, target_of
from interp_lab.config.schema import Mode
from interp_lab.errors import ConfigError
from interp_lab.libraries.hydra_inside import parsed

# Roots and nodes that count where a finished result is drawn or computed again by its path.
OF_A_RESULT = ("results", "mode", "task", "visualization", "select", "numbers", "experiment")
OF_A_RESULT += ("output", "hydra", "allow_targets", "importers", "doctor")
MEASURED = ("model", "dataset", "analysis")
# What a node refers to: `${visualization.frames}`, `${oc.select:numbers.top_k,5}`.
REFERENCE = re.compile(r"^\$\{(?:oc\.select:)?([a-z_.]+)(?:,[^}]*)?\}$")
# Nodes whose classes may say that an option counts only with another one.
DEPENDENT = ("analysis", "numbers", "dataset", "visualization")


def check_effects(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Check that what was typed can have an effect, as far as the configuration says it.

    Args:
        cfg: the composed configuration.
        overrides: what was typed.

    Raises:
        ConfigError: names the option and what it needs.
    """
    typed = [o for o in parsed(list(overrides)) if not o.deletes]
    of_result = cfg.mode in (Mode.render, Mode.compute, Mode.summary)
    for override in typed:
        root = override.key.partition(".")[0].partition("/")[0].partition("@")[0]
        # What was measured of the result has an error of its own, in `study.restyled`.
        told = root in MEASURED and "." in override.key
        if of_result and cfg.results and root not in OF_A_RESULT and not told:
            raise ConfigError(
                f"{override.text}: has no effect in mode={cfg.mode.value} of a result that is "
                "named; leave it out, or measure anew with mode=run"
            )
        if root == "results" and cfg.results and cfg.mode in (Mode.run, Mode.plan):
            raise ConfigError(
                f"{override.text}: has no effect in mode={cfg.mode.value}, which measures; draw "
                "that result with mode=render, or leave it out"
            )
    if not of_result:
        keys = {override.key for override in typed}
        for node in DEPENDENT:
            check_companions(plain(cfg[node]), node, keys)


def check_companions(values: Mapping[str, Any], node: str, typed: set[str]) -> None:
    """Check that options that count only beside another one stand beside it.

    A class says so as `only_with`: option -> the option that must be set for it, or that option and
    the value that it must have.

    Raises:
        ConfigError: names both.
    """
    if not any(key.startswith(f"{node}.") for key in typed):
        return
    stated = getattr(target_of(values, node), "only_with", {})
    for option, companion in stated.items() if isinstance(stated, Mapping) else ():
        other, needed = companion if isinstance(companion, tuple) else (companion, None)
        there = values.get(other)
        if f"{node}.{option}" not in typed or not values.get(option):
            continue
        if there != needed if needed is not None else not there:
            wanted = "" if needed is None else f"={needed}"
            raise ConfigError(
                f"{node}.{option}={values.get(option)}: has an effect with {node}.{other}{wanted} "
                f"alone, which is {there!r}; set that too, or leave this out"
            )


def check_figure_options(figures: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Check that options of figures belong to figures that are drawn.

    Raises:
        ConfigError: for an option of a figure that is switched off.
    """
    for override in parsed(list(overrides)):
        parts = override.key.split(".")
        if parts[:2] != ["visualization", "figures"] or len(parts) < 4 or parts[3] == "enabled":
            continue
        if not figures.get(parts[2], {}).get("enabled", True):
            raise ConfigError(
                f"{override.text}: figure {parts[2]} is switched off, so it has no effect; give "
                f"visualization.figures.{parts[2]}.enabled=true too"
            )


def check_sample_figures(figures: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Check that a limit of samples' figures stands where there are such figures.

    Raises:
        ConfigError: where no figure is of a sample.
    """
    of_samples = [n for n, f in figures.items() if f.get("enabled", True) and f["per"] != "run"]
    for override in parsed(list(overrides)):
        if override.key == "visualization.max_samples" and figures and not of_samples:
            raise ConfigError(
                f"{override.text}: no figure of this command is of a sample, so it has no effect"
            )


def follow_references(stored: DictConfig, key: str, typed: set[str]) -> None:
    """Give a changed option also to the figures whose nodes refer to it.

    Args:
        stored: a result's configuration, whose references were resolved when it was stored.
        key: the option that was changed, with dots.
        typed: all options that were typed; what was typed of a figure itself stays.
    """
    figures = stored.get("visualization", {}).get("figures") or {}
    for name, option, target, referred in _references():
        place = f"visualization.figures.{name}.{option}"
        node = figures.get(name)
        if referred != key or place in typed or node is None or node.get("_target_") != target:
            continue
        OmegaConf.update(stored, place, OmegaConf.select(stored, key), force_add=True)


def _references() -> Iterator[tuple[str, str, str, str]]:
    """Yield figure, option, draw function and the key that the option is read from."""
    for path in sorted((conf_dir() / "visualization").glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, figure in (node.get("figures") or {}).items():
            for option, value in figure.items():
                found = REFERENCE.match(value) if isinstance(value, str) else None
                if found and "_target_" in figure:
                    yield name, option, str(figure["_target_"]), found[1]
