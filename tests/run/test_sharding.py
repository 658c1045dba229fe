"""Which samples a job measures, from Hydra's own record of a sweep."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from interp_lab.config.nodes import conf_dir
from interp_lab.errors import ConfigError
from interp_lab.run.sweep.record import SweepJob, swept_jobs
from interp_lab.run.sweep.sharding import Share, order_of, share_of


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.fixture
def shares(tmp_path: Path) -> Callable[..., list[Share]]:
    """Return the share of every job of a sweep that was typed so."""

    def work_out(*typed: str, params: dict[str, str] | None = None) -> list[Share]:
        hydra = {"overrides": {"task": list(typed)}, "sweeper": {"params": params}}
        OmegaConf.save({"hydra": hydra}, tmp_path / "multirun.yaml")
        folder = tmp_path / ".jobs" / "id"
        jobs = swept_jobs(folder).jobs
        found = []
        for number, overrides in enumerate(jobs):
            job = SweepJob(folder, number, overrides, "a sweep")
            found.append(share_of(composed(*overrides), job))
        return found

    return work_out


def told(shares: list[Share]) -> list[str]:
    return [str(share) for share in shares]


@pytest.mark.parametrize("typed", ["device=0,1,2", "device=range(0,3)", "device=choice(0,1,2)"])
def test_jobs_that_differ_in_the_device_share_the_samples(
    shares: Callable[..., list[Share]], typed: str
) -> None:
    assert told(shares(typed)) == [
        "samples 1 of 3 (device 0 of 0,1,2)",
        "samples 2 of 3 (device 1 of 0,1,2)",
        "samples 3 of 3 (device 2 of 0,1,2)",
    ]


def test_a_value_that_stands_twice_makes_two_shares(shares: Callable[..., list[Share]]) -> None:
    assert told(shares("device=cpu,cpu")) == [
        "samples 1 of 2 (device cpu of cpu,cpu)",
        "samples 2 of 2 (device cpu of cpu,cpu)",
    ]


def test_other_keys_make_groups_that_are_shared_each(shares: Callable[..., list[Share]]) -> None:
    found = shares("analysis.metric=cosine,dot_product", "device=0,1", "seed=3")
    assert [(s.index, s.count) for s in found] == [(0, 2), (1, 2)] * 2
    found = shares("device=0,1", "model=tiny_clip,clip_vit_base_patch32")
    assert [(s.index, s.count) for s in found] == [(0, 2), (0, 2), (1, 2), (1, 2)]


def test_a_sweep_that_a_config_holds_is_shared_too(shares: Callable[..., list[Share]]) -> None:
    found = shares("seed=1,2", params={"device": "cpu,cpu", "seed": "7"})
    # What is typed comes after what the config says, in the config's place.
    assert [(s.index, s.count) for s in found] == [(0, 2), (0, 2), (1, 2), (1, 2)]


@pytest.mark.parametrize("typed", [("seed=1,2",), ("device=0", "seed=1,2"), ("device=0",)])
def test_without_several_devices_every_job_does_everything(
    shares: Callable[..., list[Share]], typed: tuple[str, ...]
) -> None:
    assert set(shares(*typed)) == {Share()}


def test_sharing_is_turned_off_or_done_by_hand(shares: Callable[..., list[Share]]) -> None:
    assert set(shares("device=0,1", "shard.axis=null")) == {Share()}
    found = shares("shard.index=0,1,2", "shard.count=3")
    assert [(s.index, s.count) for s in found] == [(0, 3), (1, 3), (2, 3)]
    found = shares("device=0,1", "shard.index=1", "shard.count=4")
    assert [(s.index, s.count) for s in found] == [(1, 4), (1, 4)]
    assert share_of(composed("shard.index=2", "shard.count=3"), None).places(9, 1) == [2, 5, 8]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("shard.axis=devcie",), ["shard.axis=devcie", "'device'"]),
        (("shard.axis=seed", "seed=1,2"), ["shard.axis=seed", "same numbers"]),
        (("shard.axis=model", "model=tiny_clip,siglip_base"), ["shard.axis=model"]),
        (("shard.index=1",), ["shard.index", "shard.count"]),
        (("shard.count=1",), ["shard.count", "shard.index"]),
        (("shard.index=3", "shard.count=3"), ["shard.index=3", "is 2"]),
    ],
)
def test_what_cannot_be_shared_is_refused(
    shares: Callable[..., list[Share]], typed: tuple[str, ...], says: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        shares(*typed)
    for words in says:
        assert words in str(error.value)


def test_a_job_that_the_record_does_not_tell_of_is_refused(tmp_path: Path) -> None:
    hydra = {"overrides": {"task": ["device=0,1"]}, "sweeper": {}}
    OmegaConf.save({"hydra": hydra}, tmp_path / "multirun.yaml")
    job = SweepJob(tmp_path / ".jobs" / "id", 1, ("device=0",), "a sweep")
    with pytest.raises(ConfigError, match="job 1"):
        share_of(composed("device=0"), job)


@given(n=st.integers(0, 100), count=st.integers(1, 12), batch_size=st.integers(1, 9))
def test_shares_hold_every_sample_once_and_whole_batches(
    n: int, count: int, batch_size: int
) -> None:
    places = [Share(i, count).places(n, batch_size) for i in range(count)]
    assert sorted(p for share in places for p in share) == list(range(n))
    for share in places:
        batches = {p // batch_size for p in share}
        whole = [p for b in sorted(batches) for p in range(b * batch_size, (b + 1) * batch_size)]
        assert share == [p for p in whole if p < n]
    assert max(map(len, places)) - min(map(len, places)) <= batch_size


class Lengths:
    """A data set that says how long its samples are."""

    def __init__(self, lengths: list[int] | None) -> None:
        self.known = lengths

    def lengths(self) -> list[int] | None:
        return self.known


def test_samples_of_like_length_share_a_batch_near_their_place() -> None:
    lengths = [9, 1, 8, 2, 7, 3] * 40
    order = order_of(Lengths(lengths), 3)
    assert order is not None and sorted(order) == list(range(240))
    # Within stretches of 32 batches of 3; ties keep the data set's order.
    assert order[:3] == [1, 7, 13] and max(order[:96]) == 95
    batches = [order[i : i + 3] for i in range(0, 240, 3)]
    padded = sum(max(lengths[i] for i in b) * 3 - sum(lengths[i] for i in b) for b in batches)
    assert padded <= 0.02 * sum(lengths)


@given(
    lengths=st.lists(st.integers(0, 50), min_size=1, max_size=90),
    count=st.integers(1, 5),
    size=st.integers(1, 6),
)
def test_batches_are_the_same_however_many_jobs_there_are(
    lengths: list[int], count: int, size: int
) -> None:
    order, n = order_of(Lengths(lengths), size), len(lengths)
    one = [list(b) for b in Share().batches(n, size, order=order)]
    shared = [list(b) for i in range(count) for b in Share(i, count).batches(n, size, order=order)]
    assert sorted(one) == sorted(shared)
    assert sorted(p for b in one for p in b) == list(range(n))


def test_without_lengths_or_with_batches_of_one_the_order_is_the_data_sets() -> None:
    assert order_of(object(), 4) is None and order_of(Lengths(None), 4) is None
    assert order_of(Lengths([3, 1, 2]), 1) is None


def test_jobs_take_from_the_shares_of_their_own_sweep_or_as_they_are_told(
    shares: Callable[..., list[Share]],
) -> None:
    def among(*typed: str) -> list[tuple[int, ...]]:
        return [share.among for share in shares(*typed)]

    assert among("device=cpu,cpu") == [(0, 1)] * 2
    assert among("device=cpu,cpu", "shard.steal=false") == [()] * 2
    by_hand = ("shard.index=0,2", "shard.count=4")
    assert among(*by_hand) == [(0, 2)] * 2
    assert among(*by_hand, "shard.steal=true") == [(0, 1, 2, 3)] * 2
    assert among(*by_hand, "shard.steal=false") == [()] * 2
    # Separate commands keep their shares unless they say otherwise.
    alone = composed("shard.index=1", "shard.count=3")
    assert share_of(alone, None).among == ()
    alone = composed("shard.index=1", "shard.count=3", "shard.steal=true")
    assert share_of(alone, None).among == (0, 1, 2)
