"""The command line: what is typed, its help, and one line for what was typed wrongly."""

from interp_lab.cli.command import main, run

__all__ = ["main", "run"]
