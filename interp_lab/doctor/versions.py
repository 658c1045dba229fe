"""Which versions are installed, and whether each lies within what pyproject says was tested."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from interp_lab import __version__
from interp_lab.doctor.findings import Finding

GROUP = "versions"
DISTRIBUTION = "interp-lab"


def requirements() -> list[Requirement]:
    """Return what the installed package asks for on this machine, optional extras left out.

    Raises:
        PackageNotFoundError: if the package is not installed.
    """
    found = [Requirement(text) for text in requires(DISTRIBUTION) or ()]
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


def tested_range(name: str) -> str:
    """Return a requirement as pip takes it (`torch>=2.4`), or the bare name if none is known."""
    try:
        known = {r.name: r for r in requirements()}
    except PackageNotFoundError:
        return name
    return f"{name}{known[name].specifier}" if name in known else name


def untested() -> list[str]:
    """Return a note for each library that captured numbers hang on and that is out of range."""
    notes = []
    for name in ("transformers", "torch"):
        bounds = Requirement(tested_range(name)).specifier
        found = version(name)
        if not bounds.contains(found, prereleases=True):
            notes.append(
                f"{name} {found} is outside the tested range {bounds}; what is captured was proved "
                f"on it here, nothing else was: pip install '{name}{bounds}'"
            )
    return notes


def version_findings() -> Iterator[Finding]:
    """Yield a finding for this package, for Python and for every package that is asked for."""
    yield Finding(GROUP, "interp_lab", "ok", __version__, {"version": __version__})
    try:
        wanted = requirements()
    except PackageNotFoundError:
        yield Finding(
            GROUP,
            "bounds",
            "warning",
            "interp_lab is not installed, so its bounds are not "
            "known: pip install -e . in its folder",
        )
        wanted = [Requirement(name) for name in ("torch", "transformers", "numpy", "h5py")]
    else:
        python = SpecifierSet(metadata(DISTRIBUTION)["Requires-Python"] or "")
        yield judged("python", platform.python_version(), python)
    for requirement in sorted(wanted, key=lambda r: r.name):
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            remedy = f"not installed: pip install '{requirement}'"
            yield Finding(GROUP, requirement.name, "failure", remedy, {"version": None})
            continue
        yield judged(requirement.name, found, requirement.specifier)


def judged(name: str, found: str, bounds: SpecifierSet) -> Finding:
    """Return whether a version lies within its bounds, which are what was tested."""
    details = {"version": found, "bounds": str(bounds)}
    if bounds.contains(found, prereleases=True):
        return Finding(GROUP, name, "ok", f"{found} ({bounds or 'any'})", details)
    remedy = f"install a Python {bounds}" if name == "python" else f"pip install '{name}{bounds}'"
    text = f"{found} is outside the tested range {bounds}: {remedy}"
    return Finding(GROUP, name, "failure", text, details)
