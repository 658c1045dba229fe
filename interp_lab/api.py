"""For notebooks and scripts: a run as a function."""

from pathlib import Path

from interp_lab.config.composing import composed_here
from interp_lab.config.typed import understood
from interp_lab.errors import StoreError
from interp_lab.run.study import run_study
from interp_lab.store.results import Results, open_results


def run(overrides: list[str] | None = None, config_dir: str | None = None) -> Results:
    """Run a study, as the command line does, and return its result, opened.

    Args:
        overrides: what would be typed, such as `["model=clip_vit_base_patch32", "device=cuda"]`.
        config_dir: a folder of your own configs; ./conf and ./studies are looked in anyway.

    Raises:
        InterpLabError: what the command line prints as one line.
    """
    given = list(overrides or [])
    cfg = composed_here(given, [Path(config_dir)] if config_dir else [])
    path = run_study(cfg, understood(given)).results
    if path is None:
        raise StoreError(
            f"shard.index={cfg.shard.index}: this share is finished, others of the "
            f"{cfg.shard.count} are not; the last one makes the result"
        )
    return open_results(path)
