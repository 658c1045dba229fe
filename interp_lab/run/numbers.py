"""What is made of a result's samples, made again with other options: no model, no torch.

Aggregates, intervals, reports and exports depend on the node `numbers` and on what is stored, so
they are made anew in seconds where that node differs from the one that the result was made with.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from interp_lab.config.nodes import build, plain
from interp_lab.config.yaml_text import as_data, literal
from interp_lab.errors import StoreError
from interp_lab.identity.names import each_target, name_of, target_of_name
from interp_lab.run.fit import check_numbers
from interp_lab.store.merge import recompute
from interp_lab.store.results import open_results
from interp_lab.store.rundir import EXPORTS

log = logging.getLogger(__name__)
# Keys of the analysis node that moved to `numbers` or `visualization` with schema version 2.
DRAWN = ("start_phrase",)


def stored_text(cfg: DictConfig) -> str:
    """Return a configuration as a result keeps it.

    It has no Python paths: a result outlives the place of a module.
    """
    return OmegaConf.to_yaml(OmegaConf.create(each_target(plain(cfg), name_of)))


def stored_config(text: str, composed: DictConfig) -> DictConfig:
    """Return a result's configuration, its classes and figures by today's dotted paths.

    It is data, whoever wrote it: classes and figures are those of our own table by their names,
    texts are texts and no references to other values, and what it allows to import counts for
    nothing. A result of before has the options of its numbers among those of the analysis; they
    are moved.

    Args:
        text: as `stored_text` gives it.
        composed: the configuration of the command, whose task is that of the result.

    Raises:
        StoreError: if it is no configuration, or a class or figure is not known to this version.
    """
    found = each_target(as_data(text, "the stored configuration"), target_of_name)
    if "numbers" not in found and "analysis" in found:
        numbers, analysis = plain(composed.numbers), found["analysis"]
        found["numbers"] = {k: analysis.pop(k, v) for k, v in numbers.items() if k != "_target_"}
        found["numbers"]["_target_"] = numbers["_target_"]
        for key in DRAWN:
            analysis.pop(key, None)
    # A result that was not measured by a study, such as that of tracked gates, has none.
    found.setdefault("numbers", {})
    return cast(DictConfig, OmegaConf.create(literal(found)))


def differ(cfg: DictConfig, path: Path) -> bool:
    """Return whether a result's numbers were made with other options than a configuration says."""
    with open_results(path) as results:
        stored = stored_config(results.attributes["config"], cfg)
    return _options(stored) != _options(cfg)


def compute_again(cfg: DictConfig, path: Path) -> None:
    """Make a result's aggregates and exports anew, as the node `numbers` says.

    Args:
        cfg: the configuration that the result keeps from now on.
        path: the result.

    Raises:
        StoreError: if the result is not complete.
    """
    numbers = build(cfg, "numbers", seed=cfg.seed)
    with open_results(path) as results:
        check_numbers(numbers, results.fields, path)
        attributes = results.attributes
        definitions = {**results.definitions, **numbers.definitions}
        stored = stored_config(attributes["config"], cfg)
    if not attributes.get("complete"):
        raise StoreError(f"{path}: is not complete; the command of the run goes on with it")
    stored.numbers = cfg.numbers
    log.info("numbers are made again of %d samples; nothing is measured", attributes["n_samples"])
    changed = {"config": stored_text(stored), "definitions": json.dumps(definitions)}
    recompute(path, changed, numbers.compute)
    if cfg.output.exports:
        write_exports(cfg, numbers, path)


def write_exports(cfg: DictConfig, numbers: Any, path: Path) -> None:
    """Write the files that earlier scripts read, configuration and prompts, beside a result."""
    folder = path.parent / EXPORTS
    folder.mkdir(exist_ok=True)
    config = OmegaConf.to_yaml(cfg, resolve=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    with open_results(path) as results:
        if results.prompts:
            text = json.dumps(results.prompts, ensure_ascii=False, indent=1)
            (folder / "prompts.json").write_text(text + "\n", encoding="utf-8")
        numbers.export(results, folder)


def _options(cfg: DictConfig) -> Mapping[str, Any]:
    return {k: v for k, v in plain(cfg.numbers).items() if k not in ("_target_", "name")}
