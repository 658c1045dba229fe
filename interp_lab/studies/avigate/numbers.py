"""The numbers of avigate: what is made of measured gates, and with which options."""

from pathlib import Path
from typing import Any

from interp_lab.errors import ConfigError
from interp_lab.fields import Field
from interp_lab.store.results import Results
from interp_lab.studies.avigate.aggregates import aggregates
from interp_lab.studies.avigate.exports import export


class GateNumbers:
    """Statistics of gates, what goes with |g|, how well moments are found, report and exports.

    Args:
        near_zero: the largest |g| that counts as zero.
        compare_samples: which samples stand beside each other in comparisons/gate_comparison:
            true = the first ones, false = none, or their ids.
        save_raw: also write every sample's gates as .npy.
        bootstrap: resamples of the intervals.
        seed: of the resamples.
    """

    needs = ("gate_*",)

    def __init__(
        self,
        near_zero: float = 0.05,
        compare_samples: bool | list[str | int] = True,
        save_raw: bool = False,
        bootstrap: int = 1000,
        seed: int = 0,
    ) -> None:
        if near_zero < 0 or bootstrap < 100:
            raise ConfigError("numbers: near_zero from 0 on, bootstrap from 100 on")
        self.near_zero = near_zero
        self.compare_samples = compare_samples
        self.save_raw = save_raw
        self.bootstrap = bootstrap
        self.seed = seed
        self.definitions = {"near_zero": f"|g| up to {near_zero:g}"}

    def compute(self, results: Results) -> list[tuple[Field, Any]]:
        """Return statistics, what goes with |g|, and how well moments are found."""
        return aggregates(results, self.near_zero, self.bootstrap, self.seed)

    def export(self, results: Results, folder: Path) -> None:
        """Write statistics, the samples' details, the report and, if asked, raw gates."""
        export(results, folder, save_raw=self.save_raw)
