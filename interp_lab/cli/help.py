"""`--help`: groups with their options, every key with its value, examples.

Hydra has a help of its own, but it composes every file of every group for it; reading the folders
takes a tenth of the time and says the same.
"""

from pathlib import Path

from omegaconf import OmegaConf

from interp_lab.config.folders import MAIN, primary_configs
from interp_lab.config.nodes import conf_dir
from interp_lab.libraries.hydra_inside import composed

HEADER = """\
interp_lab shows what multimodal models attend to.

Examples
  python -m interp_lab                                      embedded model and photograph, offline
  python -m interp_lab dataset=images dataset.path=cat.jpg model=clip_vit_large_patch14_336
  python -m interp_lab dataset=images dataset.path=photos/ analysis.metric=dot_product device=cuda:1
  python -m interp_lab --multirun model=clip_vit_large_patch14,clip_vit_large_patch14_336
  python -m interp_lab --multirun task=scienceqa device=0,1,2
  python -m interp_lab mode=render results=outputs/.../results.h5 visualization.cmap=hot
  python -m interp_lab mode=summary results=outputs/.../results.h5
  python -m interp_lab mode=plan task=scienceqa model=llava_1_5_7b
  python -m interp_lab mode=models                          which task runs with which model?
  python -m interp_lab mode=doctor                          is everything exact and there, here?

Choose one option of a group with group=option"""

# Launchers that bring their own configuration.
INSTALLED_LAUNCHERS = ("joblib", "ray")

FOOTER = """\
Flags (they may stand anywhere)
  --multirun         run every combination of comma-separated values
  --config-dir DIR   add a folder of your own configs (./conf and ./studies are looked in anyway)
  --config-name NAME start from one of them
  --cfg job          print the configuration and do nothing
  --json             with mode=doctor: print JSON, for a bug report
  --hydra-help       Hydra's own flags"""


def help_text(folders: list[Path], overrides: list[str], name: str | None = None) -> str:
    """Return the help.

    Args:
        folders: the user's config folders; their options are listed with ours.
        overrides: what was typed beside `--help`, so that `task=x --help` shows that task's keys.
        name: what `--config-name` was given; None = the package's.
    """
    lines = [HEADER]
    for group in sorted(p.name for p in conf_dir().iterdir() if p.is_dir()):
        options = {p.stem for f in (conf_dir(), *folders) for p in (f / group).glob("*.yaml")}
        if options:
            lines.append(f"  {group:<14} {', '.join(sorted(options))}")
    presets = {path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml")}
    launchers = ", ".join(sorted({*INSTALLED_LAUNCHERS, *presets}))
    lines.append(f"  hydra/launcher {launchers}")
    own = primary_configs(folders)
    if own:
        lines += ["", "Your own configurations, for --config-name=NAME"]
        lines += [f"  {own_name:<14} {path}" for own_name, path in own.items()]
    cfg = composed(conf_dir(), overrides, name or MAIN)
    lines += ["", "Every key and its value now; change it with key=value", ""]
    return "\n".join([*lines, OmegaConf.to_yaml(cfg), FOOTER])
