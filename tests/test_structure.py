"""The house, frozen: which way imports go, how large a module may be, what must stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "interp_lab"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE = 300
LONGEST_FUNCTION = 60

# Ground floor first; a package may import those that stand before it in its wing.
GROUND = ["errors", "libraries", "bands", "names", "fingerprints", "checkpoints", "identity"]
GROUND += ["fields", "tokens", "locks", "schema", "config", "sweep", "sharding"]
TORCH_WING = [*GROUND, "zoo", "datasets", "models", "capture", "analyses", "measure", "selfcheck"]
LIGHT_WING = [*GROUND, "store", "visualization", "summary"]
# A contract names the store's reader, which every analysis streams from.
# A training of the zoo makes weights for a network of `models`, from the data set's own features.
ALSO = {
    "analyses": ["store"],
    "checkpoints": ["zoo"],
    "measure": ["store", "progress"],
    "models": ["zoo"],
    "zoo": ["datasets", "models"],
}
JOINTS = {
    *("runner", "work", "merging", "jobs", "cli", "api", "complaints", "help", "progress"),
    *("going_on", "planning", "gate_tracking", "gate_files", "attention_visualizer", "doctor"),
    *("__main__", "__init__"),
}


def room(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms of this project that a file imports, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "interp_lab" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms - {room(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = room(path)
    if own in JOINTS:
        return
    allowed: set[str] = set(ALSO.get(own, []))
    for wing in (TORCH_WING, LIGHT_WING):
        if own in wing:
            allowed |= set(wing[: wing.index(own)])
    assert own in TORCH_WING + LIGHT_WING, f"{own} has no place in the house"
    assert imported_rooms(path) <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_is_small_typed_and_says_its_purpose(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with why it exists"
    assert text.count("\n") <= LONGEST_MODULE
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"
            assert node.returns is not None, f"{node.name} has no return type"


# What only `interp_lab.libraries` may name: the inside of other libraries.
INSIDE = ["override_parser", "GlobalHydra", "HydraConfig.", "RunMode"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_one_package_relies_on_the_inside_of_libraries(path: Path) -> None:
    if room(path) != "libraries":
        text = path.read_text(encoding="utf-8")
        assert [word for word in INSIDE if word in text] == []


@pytest.mark.parametrize(
    "module",
    [
        "interp_lab.cli.command",
        "interp_lab.run.study",
        "interp_lab.store.merge",
        "interp_lab.visualization.draw",
    ],
)
def test_light_modules_import_neither_torch_nor_transformers(module: str) -> None:
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
