"""The configuration for notebooks and scripts, whose mistakes are one line as on a command line."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from interp_lab.config.complaints import explain
from interp_lab.config.folders import all_folders
from interp_lab.config.former import instead
from interp_lab.config.nodes import conf_dir
from interp_lab.config.typed import understood
from interp_lab.config.yaml_text import check_folder
from interp_lab.errors import ConfigError, InterpLabError, OldOptionError
from interp_lab.libraries.hydra_inside import composed, search_in


def composed_here(overrides: Sequence[str], folders: Sequence[Path] = ()) -> DictConfig:
    """Return the configuration that a command with these overrides would have.

    Args:
        overrides: such as `model=clip_vit_base_patch32`.
        folders: the user's own configs; ./conf and ./studies are looked in too.

    Raises:
        InterpLabError: what the command line prints as one line.
    """
    own = all_folders(folders)
    for folder in own:
        check_folder(folder)
    search_in(own)
    former = instead(list(overrides), own)
    if former:
        raise OldOptionError(former)
    try:
        return composed(conf_dir(), understood(list(overrides)))
    except InterpLabError:
        raise
    except Exception as error:
        line = explain(error, list(overrides), own)
        if line is None:
            raise
        raise ConfigError(line) from error
