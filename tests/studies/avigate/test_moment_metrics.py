"""Moment retrieval by hand: overlaps, recall at 1, average precision."""

import numpy as np
import pytest

from interp_lab.studies.avigate.moment_metrics import (
    average_precision,
    mean_average_precision,
    moment_values,
    overlaps,
    recall_at_one,
)


def test_overlap_is_intersection_over_union() -> None:
    found = np.array([[0, 10], [5, 15], [20, 30], [4, 4]])
    true = np.array([[0, 10], [4, 4]])
    # [5, 15] and [0, 10] share 5 of 15 seconds; two empty windows share nothing.
    assert overlaps(found, true) == pytest.approx(np.array([[1, 0], [1 / 3, 0], [0, 0], [0, 0]]))


def test_recall_counts_the_surest_window_alone_against_the_best_true_one() -> None:
    true = np.array([[40.0, 60.0], [0.0, 10.0]])
    found = np.array([[0.0, 20.0], [40.0, 60.0]])
    assert recall_at_one(found, true, 0.5)  # 10 of 20 seconds: exactly the threshold
    assert not recall_at_one(found, true, 0.7)  # the second window would be right
    assert not recall_at_one(np.zeros((0, 2)), true, 0.5)


def test_average_precision_is_the_area_by_hand() -> None:
    true = np.array([[0.0, 10.0], [20.0, 30.0]])
    found = np.array([[0.0, 10.0], [50.0, 60.0], [20.0, 30.0]])
    # Right, wrong, right: precision 1 at recall 1/2, 2/3 at recall 1.
    assert average_precision(found, true, 0.5) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_precision_at_a_recall_is_the_highest_further_on() -> None:
    true = np.array([[0.0, 10.0], [20.0, 30.0]])
    found = np.array([[50.0, 60.0], [0.0, 10.0], [20.0, 30.0]])
    # Wrong, right, right: precision 1/2 and 2/3; the interpolated one is 2/3 at both.
    assert average_precision(found, true, 0.5) == pytest.approx(2 / 3)


def test_a_true_window_is_found_once() -> None:
    true = np.array([[0.0, 10.0]])
    twice = np.array([[0.0, 10.0], [0.0, 9.0]])
    assert average_precision(twice, true, 0.5) == 1.0
    two = np.array([[0.0, 10.0], [100.0, 110.0]])
    assert average_precision(twice, two, 0.5) == 0.5


def test_a_taken_window_leaves_the_next_best_free() -> None:
    true = np.array([[0.0, 10.0], [2.0, 12.0]])
    found = np.array([[0.0, 10.0], [0.5, 10.5]])  # both are nearest to the first
    assert average_precision(found, true, 0.5) == 1.0


def test_only_ten_windows_count() -> None:
    true = np.array([[0.0, 10.0]])
    wrong = np.tile([[50.0, 60.0]], (10, 1))
    assert average_precision(np.vstack([wrong, [[0.0, 10.0]]]), true, 0.5) == 0.0
    assert average_precision(np.vstack([wrong[:9], [[0.0, 10.0]]]), true, 0.5) == 0.1


def test_the_mean_is_over_ten_thresholds() -> None:
    # 7 of 10 seconds: right at 0.5, 0.55, 0.6, 0.65 and 0.7, five of the ten.
    found, true = np.array([[0.0, 7.0]]), np.array([[0.0, 10.0]])
    assert mean_average_precision(found, true) == pytest.approx(0.5)
    assert moment_values(found, true) == {"r1_0_5": 1, "r1_0_7": 1, "average_precision": 0.5}


@pytest.mark.parametrize(
    ("found", "true", "says"),
    [
        ([[0, 1]], [], "no true window"),
        ([[3, 1]], [[0, 1]], "ends before"),
        ([[0, 1, 2]], [[0, 1]], "pairs"),
    ],
)
def test_malformed_windows_are_refused(found: list, true: list, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        moment_values(np.array(found), np.array(true))
