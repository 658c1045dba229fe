"""Options that would do nothing are refused; drawing again keeps what is there."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from interp_lab.config.nodes import conf_dir, plain
from interp_lab.errors import ConfigError
from interp_lab.libraries.hydra_inside import composed
from interp_lab.run.effects import (
    check_companions,
    check_effects,
    check_figure_options,
    check_sample_figures,
    follow_references,
)
from interp_lab.store.places import sample_folder

TARGET = "interp_lab.studies.scienceqa.analysis.ScienceQAHeads"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("mode=render", "results=a", "batch_size=2"), "batch_size=2: has no effect in mode=rend"),
        (("mode=compute", "results=a", "seed=3"), "seed=3: has no effect in mode=compute"),
        (("mode=summary", "results=a", "device=cpu"), "device=cpu: has no effect"),
        (("mode=render", "results=a", "model=tiny_llava"), "model=tiny_llava: has no effect"),
        (("mode=render", "results=a", "capture.verify=off"), "capture.verify=off: has no effect"),
        (("results=a/results.h5",), "results=a/results.h5: has no effect in mode=run"),
        (
            ("task=scienceqa", "analysis.knockout_heads=3"),
            "analysis.knockout_heads=3: has an effect with analysis.knockout alone",
        ),
        (
            ("task=semdim", "dataset.data_type=ipa", "dataset.trim_silence=true"),
            "dataset.trim_silence=True: has an effect with dataset.data_type=audio alone",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(typed: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_effects(composed(conf_dir(), typed), typed)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "typed",
    [
        ("mode=render", "results=a", "task=scienceqa", "visualization.dpi=50", "select.layer=1"),
        ("mode=compute", "results=a", "task=scienceqa", "numbers.top_k=3", "output.exports=false"),
        # Without a result's path the same keys say which run is meant.
        ("mode=render", "task=scienceqa", "seed=3", "batch_size=2", "model=tiny_llava"),
        ("task=scienceqa", "analysis.knockout=winners", "analysis.knockout_heads=3"),
        ("task=semdim", "dataset.trim_silence=true"),
        ("task=semdim", "dataset.data_type=ipa", "dataset.audio_root=null"),
    ],
)
def test_what_does_something_passes(typed: tuple[str, ...]) -> None:
    check_effects(composed(conf_dir(), typed), typed)


def test_an_option_that_no_class_binds_passes() -> None:
    check_companions({"_target_": TARGET, "maps": 3}, "analysis", {"analysis.maps"})


def figures_of(task: str) -> dict[str, Any]:
    return plain(composed(conf_dir(), [f"task={task}"]).visualization)["figures"]


def test_options_of_a_figure_that_is_switched_off_are_refused() -> None:
    figures = figures_of("trajectory")
    off = {**figures, "video": {**figures["video"], "enabled": False}}
    typed = ["visualization.figures.video.title=x"]
    check_figure_options(figures, typed)
    check_figure_options(off, ["visualization.figures.video.enabled=false"])
    with pytest.raises(ConfigError, match="figure video is switched off"):
        check_figure_options(off, typed)


def test_a_limit_of_samples_needs_a_figure_of_samples() -> None:
    figures = figures_of("scienceqa")
    check_sample_figures(figures, ["visualization.max_samples=2"])
    figures.pop("on_image")
    with pytest.raises(ConfigError, match="no figure of this command is of a sample"):
        check_sample_figures(figures, ["visualization.max_samples=2"])


@pytest.mark.parametrize(
    ("task", "key", "value", "place"),
    [
        ("trajectory", "visualization.frames", True, "frames.enabled"),
        ("trajectory", "visualization.video", ["gif"], "video.format"),
        ("clip_similarity", "visualization.save_combined", False, "combined.enabled"),
        ("scienceqa", "numbers.top_k", 3, "top_k.top_k"),
        ("avigate", "numbers.compare_samples", False, "comparison.compare"),
    ],
)
def test_a_stored_configuration_follows_its_references(
    task: str, key: str, value: Any, place: str
) -> None:
    """As `mode=render` changes a result's configuration, in which all values are plain."""
    cfg = composed(conf_dir(), [f"task={task}"])
    keys = ("visualization", "numbers")
    stored = OmegaConf.create({node: plain(cfg[node]) for node in keys})
    node = f"visualization.figures.{place}"
    before = OmegaConf.select(stored, node)
    OmegaConf.update(stored, key, value, force_add=True)
    follow_references(stored, key, {key, node})
    assert OmegaConf.select(stored, node) == before
    follow_references(stored, key, {key})
    assert OmegaConf.select(stored, node) == value != before


def test_drawing_again_under_a_name_keeps_the_figures(command, tmp_path: Path) -> None:
    quick = ("visualization.workers=0", "visualization.dpi=20")
    one = ("visualization.save_individual=false", "visualization.max_samples=2")
    said = command("dataset=scenes", "model=tiny_clip", "dataset.max_samples=2", *quick, *one)
    assert said.code == 0, said.err
    path = Path(said.out.strip().splitlines()[-1].removeprefix("results: "))
    figures = path.parent / "figures"
    first = {p.relative_to(figures): p.stat().st_mtime_ns for p in figures.rglob("*.png")}
    assert {p.parts[0] for p in first if len(p.parts) > 1} == {"scene_0_png", "scene_1_png"}
    again = ("mode=render", f"results={path}", *quick)
    said = command(*again, "visualization.name=for_print")
    assert said.code == 0, said.err
    old = {
        p.relative_to(figures): p.stat().st_mtime_ns
        for p in figures.rglob("*.png")
        if "for_print" not in p.parts
    }
    new = {p.relative_to(figures / "for_print") for p in (figures / "for_print").rglob("*.png")}
    assert old == first and new == set(first)
    said = command(*again, "visualization.name=../x")
    assert said.code == 1 and "visualization.name=../x: give a folder's name" in said.err


class Named:
    """A result, as far as the places of its samples need it."""

    failures = ()

    def __init__(self, *ids: str) -> None:
        self.sample_ids = ids

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self.sample_ids


def test_folders_of_samples_are_not_called_like_files(tmp_path: Path) -> None:
    results: Any = Named("a.png", "b.jpeg", "1.5", "b_jpeg", "old.png")
    (tmp_path / "old.png").mkdir()
    found = [sample_folder(tmp_path, results, name).name for name in results.sample_ids]
    # What a former version made stays in use; what two names would share is told apart.
    assert found[0] == "a_png" and found[2:] == ["1.5", "b_jpeg", "old.png"]
    assert found[1].startswith("b_jpeg-") and len(set(found)) == 5
    alone: Any = Named("a.png")
    assert sample_folder(tmp_path, alone, "a.png") == tmp_path
