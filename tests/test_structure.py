"""The house, frozen: which way imports go, how large a module may be, what must stay light."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "interp_lab"
MODULES = sorted(PACKAGE.rglob("*.py"))
STUDIES = sorted(p.name for p in (PACKAGE / "studies").iterdir() if (p / "analysis.py").is_file())
LONGEST_MODULE = 400
LONGEST_FUNCTION = 60

# A package may import those that stand before it.
ORDER = (
    *("errors", "libraries", "fields", "tokens", "zoo", "identity", "config", "store"),
    *("statistics", "datasets", "models", "capture", "visualization", "doctor", "run", "studies"),
    *("api", "cli", "__main__"),
)
# A training of the zoo makes weights for a network of `models`, from the data set's own features;
# what is compiled there is cut, by what everybody cuts with, before its truth is written.
ALSO = {"zoo": {"datasets", "models", "capture"}}
# In a study torch is for what measures; these need it too, by their nature.
WITH_TORCH = {
    "avigate/gates.py",  # gates as modules put them out
    "avigate/legacy.py",  # a network of the original tool
    "avigate/tracking_methods.py",  # names on a network of the user's own
    "avigate/tracking.py",  # hooks on a network of the user's own
    "avigate/tracking_files.py",  # what it tracked, as files
    "clip_similarity/analyzer.py",  # a model in a notebook
    "scienceqa/cells.py",  # a score cell by cell: which reducers
    "scienceqa/importer.py",  # files in torch's format
    "trajectory/rows.py",  # a model's answer, with its logits
    "trajectory/visualizer.py",  # a model in a notebook
}
# Where a study may be named outside: names of the first version's results, examples to type.
NAMED = {"identity/names.py", "cli/help.py"}


def room(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The modules of this project that a file imports, anywhere in it, without the package."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n.removeprefix("interp_lab.") for n in names if n.startswith("interp_lab.")}


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    own = room(path)
    if own == "__init__":
        return
    assert own in ORDER, f"{own} has no place in the house"
    allowed = {own, *ORDER[: ORDER.index(own)], *ALSO.get(own, ())}
    assert {name.split(".")[0] for name in imported(path)} <= allowed


@pytest.mark.parametrize("path", MODULES, ids=relative)
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


def test_nothing_outside_names_a_study() -> None:
    """A data set may be called as a study is (ScienceQA), and so may what is shipped of it."""
    words = re.compile(rf"\b({'|'.join(STUDIES)})\b")
    shared = [p for p in MODULES if room(p) not in ("studies", "datasets", "zoo")]
    found = {relative(p) for p in shared if words.search(p.read_text(encoding="utf-8"))}
    assert found - NAMED == set()


@pytest.mark.parametrize("study", STUDIES)
def test_studies_never_import_each_other(study: str) -> None:
    names = {n for p in (PACKAGE / "studies" / study).rglob("*.py") for n in imported(p)}
    others = {n.split(".")[1] for n in names if n.startswith("studies.")}
    assert others <= {study}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_has_the_files_of_a_study(study: str) -> None:
    folder = PACKAGE / "studies" / study
    for name in ("analysis.py", "numbers.py", "figures"):
        assert (folder / name).exists()
    conf = PACKAGE.parent / "conf"
    for group in ("task", "analysis", "numbers", "visualization"):
        assert (conf / group / f"{study}.yaml").is_file()


def light_modules() -> list[str]:
    """What must be importable without torch: what draws, reads and computes, and the command."""
    names = ["cli.command", "run.study", "run.numbers", "store.merge", "visualization.draw"]
    for path in sorted((PACKAGE / "studies").rglob("*.py")):
        place = str(path.relative_to(PACKAGE / "studies"))
        if path.name not in ("analysis.py", "__init__.py") and place not in WITH_TORCH:
            names.append(relative(path).removesuffix(".py").replace("/", "."))
    return names


def test_light_modules_import_neither_torch_nor_transformers_nor_pyplot() -> None:
    heavy = ("torch", "transformers", "matplotlib.pyplot")
    code = (
        "import sys\nfrom importlib import import_module\n"
        f"for name in {light_modules()}:\n"
        "    import_module(f'interp_lab.{name}')\n"
        f"    found = [m for m in {heavy} if m in sys.modules]\n"
        "    assert not found, (name, found)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["interp_lab.capture", "interp_lab.studies"])
def test_every_public_name_is_there(package: str) -> None:
    face = import_module(package)
    assert face.PUBLIC
    for name in face.PUBLIC:
        assert getattr(face, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        face.no_such_name  # noqa: B018


# What only `interp_lab.libraries` may name: the inside of other libraries.
INSIDE = ["override_parser", "GlobalHydra", "HydraConfig.", "RunMode", "_attn_implementation_"]
INSIDE += ["ALL_ATTENTION_FUNCTIONS", "torch.ops.aten", "TorchDispatchMode as"]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_one_package_relies_on_the_inside_of_libraries(path: Path) -> None:
    if room(path) != "libraries":
        text = path.read_text(encoding="utf-8")
        assert [word for word in INSIDE if word in text] == []
