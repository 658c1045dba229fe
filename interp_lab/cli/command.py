"""The command line: argument order, Hydra's entry, one-line errors, exit codes.

Exit codes: 0 all well, 1 an error, 3 finished with failed samples, 130 stopped by the user.
"""

import contextlib
import io
import itertools
import logging
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import hydra
from omegaconf import DictConfig

from interp_lab.config.folders import check_chosen
from interp_lab.config.nodes import conf_dir
from interp_lab.config.typed import understood
from interp_lab.errors import (
    FAILED_SAMPLES,
    STOPPED,
    ConfigError,
    FinishedWithFailuresError,
    OldOptionError,
    StoppedByUserError,
)
from interp_lab.libraries.hydra_inside import (
    VERSION_BASE,
    check_flags,
    guard_targets,
    in_sweep,
    own_settings,
    parsed,
    search_in,
    typed_overrides,
)
from interp_lab.run.sweep.record import interruptible, started

# An option of a group, as it is typed.
OPTION = re.compile(r"\+?[a-z_/]+=[\w.\-]+")
# Hydra's flags that take a value in the next argument.
FLAGS_WITH_VALUE = frozenset(
    ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn")
    + ("--config-dir", "-cd", "--experimental-rerun", "--info", "-i")
)


def flags_and_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the flags with their values, which argparse wants first, and the overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        flags.append(argument)
        if argument in FLAGS_WITH_VALUE:
            value = next(waiting, None)
            # `--info` alone is allowed, so an override after it is not its value.
            if value is not None and argument in ("--info", "-i") and "=" in value:
                overrides.append(value)
            elif value is not None:
                flags.append(value)
    return flags, overrides


def with_json(arguments: list[str]) -> list[str]:
    """Return the arguments with our own flag `--json` as the key that it stands for.

    Raises:
        ConfigError: if the command is none that prints JSON.
    """
    if "--json" not in arguments:
        return arguments
    if "mode=doctor" not in arguments:
        raise ConfigError("--json: mode=doctor alone prints JSON; leave it out or add mode=doctor")
    return [*(a for a in arguments if a != "--json"), "doctor.json=true"]


def config_folders(arguments: list[str]) -> list[Path]:
    """Return the folders of the user's own configs."""
    folders = [b for a, b in itertools.pairwise(arguments) if a in ("--config-dir", "-cd")]
    folders += [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    return [Path(folder).expanduser() for folder in folders]


def own_folders(arguments: list[str]) -> list[Path]:
    """Return the folders of the user's own configs, with ./conf and ./studies.

    With `--config-path` there is one folder of configurations and no other.
    """
    from interp_lab.config.folders import all_folders

    given = config_folders(arguments)
    return given if _has_path(arguments) else all_folders(given)


def _has_path(arguments: list[str]) -> bool:
    return any(a.partition("=")[0] in ("--config-path", "-cp") for a in arguments)


def check_own(arguments: list[str], folders: list[Path]) -> None:
    """Check what was typed, and the file of `--config-name`, before Hydra composes anything.

    Raises:
        OldOptionError: for options of the original tools.
        ConfigError: for a name that two files have.
    """
    from interp_lab.config.folders import MAIN, SCHEMA, check_names, primary_configs
    from interp_lab.config.former import default_task, instead, instead_in, task_of

    line = instead(arguments, folders)
    name = name_of_config(arguments)
    primary = primary_configs(folders).get(name or "")
    if line is None and primary is not None:
        line = instead_in(primary, task_of(arguments, folders) or default_task())
    if line is not None:
        raise OldOptionError(line)
    chosen = [a.lstrip("+").replace("=", "/") for a in arguments if OPTION.fullmatch(a)]
    given = config_folders(arguments)
    main = [MAIN] if name == MAIN or any((f / f"{MAIN}.yaml").is_file() for f in given) else []
    check_names([SCHEMA, *main, *([name] if name else []), *chosen], folders)


def name_of_config(arguments: list[str]) -> str | None:
    """Return what `--config-name` was given, without its suffix."""
    flags = ("--config-name", "-cn")
    named = [b for a, b in itertools.pairwise(arguments) if a in flags]
    named += [a.partition("=")[2] for a in arguments if a.startswith("--config-name=")]
    return named[-1].removesuffix(".yaml") if named else None


def check_given(arguments: list[str]) -> None:
    """Check what Hydra would follow before we see it: YAML files of the user's, packages.

    Raises:
        ConfigError: for a file that stands for too many values, configs inside a package, or what
            was typed in another encoding.
    """
    from interp_lab.config.yaml_text import check_folder

    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end a run that has its numbers.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for folder in [*own_folders(arguments), *_other_folders(arguments)]:
        check_folder(folder)
    for argument in arguments:
        if any(0xD800 <= ord(c) < 0xE000 for c in argument):
            raise ConfigError(
                f"{argument!a}: cannot be read as text in the encoding of this shell "
                f"({sys.getfilesystemencoding()}); give PYTHONUTF8=1, or LC_ALL=C.UTF-8"
            )
        if "pkg://" in argument:
            raise ConfigError(
                f"{argument}: would import a package to find YAML files; give their folder as "
                "--config-dir=DIR"
            )


def _other_folders(arguments: list[str]) -> list[Path]:
    """Return further folders that YAML files are taken from: --config-path, hydra.searchpath."""
    text = " ".join(arguments)
    found = re.findall(r"file://([^\s,\]\"']+)", text)
    found += re.findall(r"(?:^|\s)(?:--config-path|-cp)[= ](\S+)", text)
    return [Path(folder) for folder in found if Path(folder).is_dir()]


def with_task_of_result(overrides: list[str]) -> list[str]:
    """Choose the task of the result that is to be drawn, unless the user chose one.

    Its options are then known to the configuration, whatever the default task is.
    """
    values = {o.key: o.value for o in parsed(overrides) if not o.is_sweep and not o.deletes}
    redrawing = values.get("mode") in ("render", "summary", "compute")
    results = str(values.get("results") or "")
    if not redrawing or not results.strip() or "task" in values:
        return overrides
    from interp_lab.store.results import open_results

    if Path(results).suffix not in ("", ".h5"):
        return overrides  # a file of another tool: the user names the task that can read it
    with open_results(results) as opened:
        task = opened.attributes.get("task_name")
    # What a result stores is no path: a name that is not among ours counts for nothing.
    known = task in {path.stem for path in (conf_dir() / "task").glob("*.yaml")}
    return [*overrides, f"task={task}"] if known else overrides


# What a single job raised. Hydra would announce it in lines of its own before handing it on.
_problems: list[Exception] = []


@hydra.main(version_base=VERSION_BASE, config_path=None, config_name="config")
def job(cfg: DictConfig) -> None:
    """Do one job; Hydra composes the configuration and calls this, in a worker if need be."""
    logging.captureWarnings(True)
    # A log that cannot be written (a full disk) must not bury the error under tracebacks.
    logging.raiseExceptions = False
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    settings = own_settings()
    if in_sweep(settings):
        from interp_lab.run.sweep.jobs import run_in_sweep

        run_in_sweep(cfg, settings)
        return
    try:
        check_chosen(settings)
        do(cfg, typed_overrides(settings))
    except Exception as error:
        _problems.append(error)


def do(cfg: DictConfig, overrides: list[str]) -> None:
    """Run the study and print where its result lies.

    Raises:
        FinishedWithFailuresError: if the result is complete but for failed samples.
    """
    # `--help` and `--cfg job` must be quick, so what a job needs is imported in the job.
    from interp_lab.run.study import run_study

    outcome = run_study(cfg, overrides)
    for path in outcome.figures[:8]:
        print(f"figure: {path}")
    if len(outcome.figures) > 8:
        print(f"figures: {len(outcome.figures)} in {outcome.figures[0].parent}")
    if outcome.results is not None:
        print(f"results: {outcome.results}", flush=True)
    outcome.complain()


def sweep_or_job(verbose: bool) -> int:
    """Let Hydra run the jobs; return the exit code of a sweep, whose errors are then printed.

    Raises:
        Exception: what went wrong before the first job of a sweep, or in a job by itself.
    """
    started(forget=True)
    raised: BaseException | None = None
    with interruptible():
        try:
            job()
        except (Exception, KeyboardInterrupt) as error:
            raised = error
    folder = started(forget=True)
    if folder is not None:
        from interp_lab.run.sweep.jobs import report

        code = report(folder, raised)
        if code is not None and not (verbose and raised):
            return code
    for error in [raised, *_problems]:
        if error is not None:
            raise error
    return 0


def main() -> NoReturn:
    """Run the command line and exit with a code."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has read enough; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    close_logs()
    sys.exit(code)


def close_logs() -> None:
    """Close the log files here: on a full disk Python would complain at exit, after the error."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            with contextlib.suppress(OSError):
                handler.close()


def run(arguments: list[str]) -> int:
    """Run the command line on these arguments and return the exit code."""
    given = arguments
    verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra prints errors in its own way and exits; with this it raises them to us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        guard_targets()
        flags, overrides = flags_and_overrides(with_json(arguments))
        check_given([*flags, *overrides])
        folders = own_folders(flags)
        search_in(folders)
        if "--help" in flags or "-h" in flags:
            from interp_lab.cli.help import help_text

            overrides = understood([a for a in overrides if "=" in a])
            print(help_text(folders, overrides, name_of_config(flags)))
            return 0
        check_own(given, folders)
        check_flags(flags)
        arguments = [*flags, *with_task_of_result(understood(overrides))]
        if not _has_path(arguments):
            arguments = [f"--config-path={conf_dir()}", *arguments]
        sys.argv = [sys.argv[0], *arguments]
        _problems.clear()
        if "mode=plan" not in arguments and "mode=doctor" not in arguments:
            return sweep_or_job(verbose)
        from interp_lab.run.plan import plan_arguments

        with tempfile.TemporaryDirectory() as folder:
            sys.argv = [sys.argv[0], *plan_arguments(arguments, folder)]
            return sweep_or_job(verbose)
    except FinishedWithFailuresError as error:
        print(f"finished with failures: {error}", file=sys.stderr)
        return FAILED_SAMPLES
    except (StoppedByUserError, KeyboardInterrupt) as error:
        print(str(error) or "stopped; the same command goes on", file=sys.stderr)
        return STOPPED
    except Exception as error:
        from interp_lab.config.complaints import explain

        line = explain(error, given, own_folders(given))
        if verbose or line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1
