"""The configuration for notebooks and scripts, whose mistakes are one line as on a command line."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from interp_lab.config.complaints import explain
from interp_lab.config.nodes import conf_dir
from interp_lab.errors import ConfigError, InterpLabError
from interp_lab.libraries.hydra_inside import composed


def composed_here(overrides: Sequence[str], folders: Sequence[Path] = ()) -> DictConfig:
    """Return the configuration that a command with these overrides would have.

    Args:
        overrides: such as `model=clip_vit_base_patch32`.
        folders: the user's own configs.

    Raises:
        InterpLabError: what the command line prints as one line.
    """
    search = [f"hydra.searchpath=[{','.join(f'file://{f.absolute()}' for f in folders)}]"]
    try:
        return composed(conf_dir(), [*overrides, *(search if folders else [])])
    except InterpLabError:
        raise
    except Exception as error:
        line = explain(error, list(overrides), list(folders))
        if line is None:
            raise
        raise ConfigError(line) from error
