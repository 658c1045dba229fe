"""Fingerprints of files: every change is seen, and what did not change is not read again."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from interp_lab.identity import files as fingerprints
from interp_lab.identity.files import ABSENT, Digests, content_of, sampled, weights_content


@pytest.fixture
def exact_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the times of files that were just written."""
    monkeypatch.setattr(fingerprints, "TIMES_ARE_COARSE", -1e18)


def test_a_file_is_known_by_its_bytes_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"two")
    assert content_of(tmp_path / "a") != content_of(tmp_path / "b")
    assert content_of(tmp_path / "c") == ABSENT
    assert content_of(tmp_path).startswith("unreadable")


def test_what_did_not_change_is_read_once(tmp_path: Path, exact_times: None) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    digests = Digests()
    first = digests.of(path)
    assert digests.of(path) == first and digests.read == 1
    later = Digests()
    later.add(digests.as_json())
    assert later.of(path) == first and later.read == 0


def test_a_file_of_the_same_size_and_time_is_read_again(tmp_path: Path, exact_times: None) -> None:
    """What `cp -p` and `mv` leave alone is not enough: inode or time of change tell."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    for file in (path, other):
        os.utime(file, ns=(10**18, 10**18))
    digests = Digests()
    first = digests.of(path)
    other.replace(path)
    assert digests.of(path) != first
    path.write_bytes(b"six")
    os.utime(path, ns=(10**18, 10**18))
    assert digests.of(path) == content_of(path)
    path.unlink()
    assert digests.of(path) == ABSENT


def test_times_of_a_file_that_was_just_written_are_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    digests = Digests()
    digests.of(path)
    digests.of(path)
    assert digests.read == 2 and digests.known == {}


def test_a_damaged_cache_is_no_cache() -> None:
    for text in ("", "[]", '{"a": [1]}', '{"a": 5}', "{"):
        digests = Digests()
        digests.add(text)
        assert digests.known == {}


def test_large_weights_are_sampled_so_that_every_head_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One head of a projection set to zero, by rows and by columns; one norm; one name."""
    monkeypatch.setattr(fingerprints, "LARGEST_WHOLE", 2**20)
    rng = np.random.default_rng(0)
    d, head = 3584, 128
    tensors = {
        "q": rng.normal(size=(d, d)).astype(np.float16),
        "o": rng.normal(size=(d, d)).astype(np.float16),
        "norm": rng.normal(size=512).astype(np.float16),
    }

    def printed(changed: dict[str, np.ndarray]) -> str:
        path = tmp_path / "m.safetensors"
        save_file(changed, path)
        return sampled(path)

    found = [printed(tensors)]
    assert printed(tensors) == found[0]
    for number in range(0, d // head, 7):
        for key, place in (
            ("q", np.s_[number * head : (number + 1) * head]),
            ("o", np.s_[:, number * head : (number + 1) * head]),
        ):
            changed = {k: v.copy() for k, v in tensors.items()}
            changed[key][place] = 0
            found.append(printed(changed))
    norm = tensors["norm"].copy()
    norm[300] += 1
    found.append(printed(tensors | {"norm": norm}))
    found.append(printed({"renamed" if k == "norm" else k: v for k, v in tensors.items()}))
    assert len(set(found)) == len(found)


def test_small_weights_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    data = bytearray(300_000)
    path.write_bytes(data)
    first = weights_content(path)
    data[123_456] = 1
    path.write_bytes(data)
    assert weights_content(path) != first and not first.startswith("sampled")
