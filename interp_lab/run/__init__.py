"""A study's way: `study` is the pipeline, `contract` what a study gives it.

`work` claims samples, `measure` is the loop over them, `merging` makes the result of what is
finished, `plan` says what a command would do, `selfcheck` what a run makes sure of, `sweep` how
jobs share samples.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """This package, which has the name of the notebook's function and can be called like it.

    Importing anything of it puts it in the place of `interp_lab.run`.
    """

    def __call__(self, overrides: list[str] | None = None, config_dir: str | None = None) -> Any:
        """Run a study; see `interp_lab.api.run`."""
        return import_module("interp_lab.api").run(overrides, config_dir)


sys.modules[__name__].__class__ = _CallablePackage
