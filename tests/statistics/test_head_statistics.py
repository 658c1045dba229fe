"""Statistics of winning heads and of answers against arithmetic that is written down here."""

import numpy as np
import pytest
from scipy import stats

from interp_lab.statistics import heads as heads

# Five samples, three layers, four heads.
WINNING = np.array([[0, 3, 1], [0, 2, 1], [0, 3, 2], [0, 1, 2], [0, 0, 3]])
COUNTS = np.array([[5, 0, 0, 0], [1, 1, 1, 2], [0, 2, 2, 1]])


def test_the_first_of_equal_scores_wins() -> None:
    scores = np.array([[[0.1, 0.4, 0.4], [0.0, 0.0, 0.0]]])
    assert heads.winners(scores).tolist() == [[1, 0]]


def test_counts_are_of_samples() -> None:
    assert heads.winner_counts(WINNING, 4).tolist() == COUNTS.tolist()
    assert heads.winner_counts(WINNING[:0], 4).tolist() == [[0] * 4] * 3
    with pytest.raises(ValueError, match="from 0 to 3, of 3"):
        heads.winner_counts(WINNING, 3)


def test_diversity_by_hand() -> None:
    assert heads.distinct_heads(COUNTS).tolist() == [1, 4, 3]
    # -3/5 log2(1/5) - 2/5 log2(2/5) and -4/5 log2(2/5) - 1/5 log2(1/5)
    expected = [0, 0.6 * np.log2(5) + 0.4 * np.log2(2.5), 0.8 * np.log2(2.5) + 0.2 * np.log2(5)]
    assert heads.entropy_bits(COUNTS) == pytest.approx(expected)
    assert heads.entropy_bits(np.full((1, 32), 7)) == pytest.approx([5])
    assert heads.entropy_bits(np.zeros((2, 4), dtype=int)).tolist() == [0, 0]


def test_the_most_frequent_head_is_the_first_on_ties() -> None:
    assert heads.top_heads(COUNTS).tolist() == [0, 3, 1]
    share = heads.top_head_share(WINNING, 4, seed=0)
    assert share.value == pytest.approx([1, 0.4, 0.4])
    assert (share.low[0], share.high[0]) == (1, 1)
    assert (share.low <= share.value).all() and (share.value <= share.high).all()


def test_a_bootstrap_interval_is_the_binomials_for_a_share() -> None:
    hits = np.repeat([1, 0], [70, 30])
    found = heads.accuracy(hits, seed=3, n_resamples=20_000)
    exact = stats.binom.ppf([0.025, 0.975], 100, 0.7) / 100  # 0.61 and 0.79
    assert found.value == 0.7
    assert [found.low, found.high] == pytest.approx(exact, abs=0.011)
    narrow = heads.accuracy(hits, seed=3, n_resamples=20_000, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(0.06, abs=0.011)  # 0.67 to 0.73


def test_two_samples_have_the_interval_that_counting_gives() -> None:
    # Resampled means are 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4.
    wide = heads.bootstrap_mean(np.array([0.0, 1.0]), seed=0)
    assert (wide.low, wide.value, wide.high) == (0, 0.5, 1)
    middle = heads.bootstrap_mean(np.array([0.0, 1.0]), seed=0, level=0.4)
    assert (middle.low, middle.high) == (0.5, 0.5)


def test_layers_are_resampled_together_and_in_any_number_of_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = np.random.default_rng(0).random(50)
    both = heads.bootstrap_mean(np.stack([one, one + 1], axis=1), seed=1)
    assert both.low[1] - both.low[0] == pytest.approx(1)
    monkeypatch.setattr(heads, "NUMBERS_AT_ONCE", 700)
    again = heads.bootstrap_mean(np.stack([one, one + 1], axis=1), seed=1)
    assert np.array(again) == pytest.approx(np.array(both))


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).random(30)
    first, same, other = (heads.bootstrap_mean(values, seed=s) for s in (5, 5, 6))
    assert np.array(first).tolist() == np.array(same).tolist()
    assert np.array(first).tolist() != np.array(other).tolist()


def test_one_sample_has_an_interval_of_no_width_and_none_is_refused() -> None:
    assert [float(x) for x in heads.accuracy(np.array([True]), seed=0)] == [1, 1, 1]
    with pytest.raises(ValueError, match="at least 1 sample"):
        heads.accuracy(np.array([]), seed=0)


def test_pairs_are_resampled_as_pairs() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(0, 10, 40)
    shifted = heads.paired_difference(before - 2, before, seed=0)
    assert [float(x) for x in shifted] == pytest.approx([-2, -2, -2])
    right, wrong = np.array([True, True, False, True]), np.array([False, True, False, False])
    assert heads.paired_difference(wrong, right, seed=0).value == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="one shape"):
        heads.paired_difference(before, before[:3], seed=0)


def test_halves_agree_always_never_or_as_often_as_counting_gives() -> None:
    # Layer 0: one head only. Layer 1: the halves of two samples always differ.
    # Layer 2 with winners 0, 0, 0, 1: the half without the 1 has head 0, the other a tie of 0 and
    # 1, which the first index wins, so they agree; with 1, 1, 1, 0 that tie makes them differ.
    two = np.array([[2, 0], [2, 1]])
    assert heads.split_half_agreement(two, 3, seed=0).tolist() == [1, 0]
    four = np.array([[0, 1], [0, 1], [0, 1], [1, 0]])
    assert heads.split_half_agreement(four, 2, seed=0).tolist() == [1, 0]
    # Winners 0, 0, 1, 1: of the three ways to split, two mix (both halves tie) and one does not.
    mixed = np.array([[0], [0], [1], [1]])
    share = heads.split_half_agreement(mixed, 2, seed=0, n_splits=3000)
    assert share == pytest.approx([2 / 3], abs=0.03)


def test_halves_of_an_odd_number_are_equal_and_one_sample_has_none() -> None:
    # Winners 0, 0, 1: one sample is left out; two that are left agree if the 1 is out (1/3).
    odd = np.array([[0], [0], [1]])
    share = heads.split_half_agreement(odd, 2, seed=0, n_splits=3000)
    assert share == pytest.approx([1 / 3], abs=0.03)
    with pytest.raises(ValueError, match="at least 2"):
        heads.split_half_agreement(odd[:1], 2, seed=0)


def test_near_ties_are_relative_to_the_first() -> None:
    scores = np.array(
        [
            [[0.100, 0.50, 0.4960], [0.0010, 0.0005, 0.0]],  # 0.8 % apart; 50 % apart
            [[0.100, 0.50, 0.4940], [0.0000, 0.0000, 0.0]],  # 1.2 % apart; nothing at all
        ]
    )
    assert heads.head_margins(scores) == pytest.approx(np.array([[0.004, 0.0005], [0.006, 0]]))
    assert heads.near_ties(scores).tolist() == [[True, False], [False, True]]
    assert heads.near_ties(scores).mean(0).tolist() == [0.5, 0.5]
    assert heads.near_ties(scores, threshold=0.02).mean(0).tolist() == [1, 0.5]


def test_a_layer_of_one_head_has_no_near_tie() -> None:
    assert not heads.near_ties(np.full((3, 2, 1), 0.2)).any()
