"""A study's way: `study` is the pipeline, `contract` what a study gives it.

`work` claims samples, `measure` is the loop over them, `merging` makes the result of what is
finished, `plan` says what a command would do, `selfcheck` what a run makes sure of, `sweep` how
jobs share samples.

Python puts this package where `interp_lab.run` is looked for, so it is also the function of that
name: calling it is calling `interp_lab.api.run`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Run(ModuleType):
    def __call__(self, overrides: list[str] | None = None, config_dir: str | None = None) -> Any:
        """Run a study and return its result, opened; see `interp_lab.api.run`."""
        # It stands above this package, so it is not imported with it.
        return import_module("interp_lab.api").run(overrides, config_dir)


sys.modules[__name__].__class__ = _Run
