"""The user's own YAML files: in the folder of `--config-dir`, and in ./conf and ./studies.

Hydra takes the first file that it finds of a name, and the package's own come first. So a file of
the user's that has the name of another would be left out without a word; here it is refused.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from interp_lab.config.nodes import conf_dir
from interp_lab.errors import ConfigError
from interp_lab.libraries.hydra_inside import (
    chosen_options,
    config_folders,
    config_name,
    packaged_folder,
    registered_options,
)

log = logging.getLogger(__name__)
# Looked for in the current folder.
NAMES = ("conf", "studies")
# The package's configuration, and the schema that it stands on.
MAIN, SCHEMA = "config", "base_config"


def found_folders() -> list[Path]:
    """Return ./conf and ./studies, if they hold YAML files and are not the package's own."""
    here = [Path.cwd() / name for name in NAMES]
    return [f for f in here if f.is_dir() and not _same(f, conf_dir()) and _has_yaml(f)]


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _has_yaml(folder: Path) -> bool:
    """Return whether a folder holds configurations: at its top, or in a folder of a group."""
    return any(folder.glob("*.yaml")) or any(folder.glob("*/*.yaml"))


def all_folders(given: Sequence[Path]) -> list[Path]:
    """Return the folders that were given, then those found here; each once."""
    folders: list[Path] = []
    for folder in [*given, *found_folders()]:
        place = folder.expanduser().absolute()
        if not any(_same(place, other) for other in folders) and not _same(place, conf_dir()):
            folders.append(place)
    return folders


def primary_configs(folders: Iterable[Path]) -> dict[str, Path]:
    """Return what `--config-name` can be of the user's own: name -> file."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            if path.stem != MAIN:
                found.setdefault(path.stem, path)
    return found


def check_names(chosen: Iterable[str], folders: Sequence[Path]) -> None:
    """Refuse a configuration that two different files have the name of.

    Args:
        chosen: configurations that a command uses, such as `model/tiny_clip` or `mine`.
        folders: the user's own.

    Raises:
        ConfigError: names both and says which to rename.
    """
    for name in chosen:
        places = list(_places(name, folders))
        own = [p for p in places if p.parent not in _packaged(name)]
        if not own:
            continue
        first, ours = places[0], len(places) > len(own)
        other = next((p for p in own if p.read_bytes() != first.read_bytes()), None)
        if other is not None:
            whose = "interp_lab's own" if ours else str(first)
            group, _, option = name.rpartition("/")
            typed = f"{group}=my_{option}" if group else f"--config-name=my_{option}"
            raise ConfigError(
                f"{other}: has the name of {whose}, which would be used in its place; rename it, "
                f"such as to my_{option}.yaml, and give {typed}"
            )
        if name in registered_options():
            raise ConfigError(
                f"{own[0]}: has the name of one of Hydra's or its plugins'; rename it"
            )


def _packaged(name: str) -> list[Path]:
    return [(folder / name).parent for folder in (packaged_folder(), conf_dir())]


def _places(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    for folder in (packaged_folder(), conf_dir(), *folders):
        path = folder / f"{name}.yaml"
        if path.is_file():
            yield path


def check_chosen(settings: Any) -> None:
    """Refuse a job whose defaults chose a configuration that two files have the name of.

    Args:
        settings: Hydra's own, of the job.

    Raises:
        ConfigError: names both files.
    """
    folders = [f for f in config_folders(settings) if not _same(f, conf_dir())]
    name, choices = config_name(settings), chosen_options(settings)
    options = [f"{group.partition('@')[0]}/{option}" for group, option in choices.items() if option]
    check_names([SCHEMA, *([] if name == MAIN else [name]), *options], folders)
    for path in (folder / f"{MAIN}.yaml" for folder in folders):
        if name == MAIN and path.is_file() and not _same(path.parent, conf_dir()):
            log.warning(
                "%s is not read: interp_lab's own has this name; rename it and give "
                "--config-name=NAME to begin from it",
                path,
            )
