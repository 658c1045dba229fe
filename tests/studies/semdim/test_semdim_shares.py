"""Fractions, means, intervals and baselines against arithmetic that is written down here."""

import numpy as np
import pytest

from interp_lab.studies.semdim import shares as statistics

# One layer, one head; queries: `big` (one token), `small` (two tokens); keys: four of the word.
PATTERN = np.array([[[[0.3, 0.1, 0.0, 0.0], [0.1, 0.1, 0.0, 0.4], [0.2, 0.3, 0.0, 0.0]]]])
UNITS = [[0], [1, 2], [2], [3]]


def test_the_fraction_by_hand() -> None:
    found = statistics.fraction(PATTERN, UNITS, [0], [1, 2])
    # 0.3 / (0.3 + 0.1 + 0.2), 0.1 / (0.1 + 0.1 + 0.3), nothing attends, only `small` does
    assert found.shape == (1, 1, 4)
    assert found[0, 0] == pytest.approx([0.5, 0.2, 0, 0])
    other = statistics.fraction(PATTERN, UNITS, [1, 2], [0])
    assert other[0, 0] == pytest.approx([0.5, 0.8, 0, 1])


def test_the_mean_does_not_favour_a_long_feature() -> None:
    found = statistics.fraction(PATTERN, UNITS, [0], [1, 2], normalize="mean")
    # 0.3 / (0.3 + 0.15), 0.1 / (0.1 + 0.2)
    assert found[0, 0] == pytest.approx([2 / 3, 1 / 3, 0, 0])
    one, two = statistics.masses(PATTERN, UNITS, [0], [1, 2], "mean")
    assert one[0, 0] == pytest.approx([0.3, 0.1, 0, 0])
    assert two[0, 0] == pytest.approx([0.15, 0.2, 0, 0.2])


def test_layers_and_heads_stay_apart_and_half_precision_is_summed_in_double() -> None:
    block = np.zeros((2, 3, 2, 1000), dtype=np.float16)
    block[1, 2, 0], block[1, 2, 1] = 3e-4, 1e-4
    found = statistics.fraction(block, [range(1000)], [0], [1])
    assert found.shape == (2, 3, 1)
    assert found[1, 2, 0] == pytest.approx(0.75, abs=1e-3)
    assert np.count_nonzero(found) == 1


def test_what_has_no_fraction_is_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        statistics.fraction(PATTERN, UNITS, [], [1])
    with pytest.raises(ValueError, match="normalize='max'"):
        statistics.fraction(PATTERN, UNITS, [0], [1], "max")  # pyright: ignore[reportArgumentType]


def test_orders_are_mapped_to_one_feature_and_averaged() -> None:
    shown = np.array([0.7, 0.0, 0.0])
    attended = np.array([True, True, False])
    assert statistics.canonical_fraction(shown, False).tolist() == [0.7, 0, 0]
    flipped = statistics.canonical_fraction(shown, True, attended)
    assert flipped == pytest.approx([0.3, 1, 0])
    assert statistics.canonical_fraction(shown, True) == pytest.approx([0.3, 1, 1])
    both = statistics.combine_orders([np.array([0.5, 0.2, 0.0]), flipped])
    assert both == pytest.approx([0.4, 0.6, 0])
    assert statistics.combine_orders([shown]).tolist() == shown.tolist()
    for orders in ([], [shown, shown[:2]]):
        with pytest.raises(ValueError, match="one shape"):
            statistics.combine_orders(orders)


def test_phone_means_count_each_word_once() -> None:
    totals = statistics.PhoneTotals(2, ["big-small", "fast-slow"])
    totals.update("big-small", ["a", "t͡ʃ", "a"], np.array([[0.2, 0.5, 0.4], [1.0, 0.0, 0.0]]))
    totals.update("big-small", ["a"], np.array([[0.7], [0.1]]))
    totals.update("fast-slow", ["m"], np.array([[0.9], [0.8]]))
    found = totals.compute()
    assert found.phones == ("a", "m", "t͡ʃ")
    # a: the words have (0.2 + 0.4) / 2 and 0.7; (1.0 + 0.0) / 2 and 0.1
    assert found.mean[:, 0, 0] == pytest.approx([0.5, 0.3])
    assert found.mean[:, 2, 0] == pytest.approx([0.5, 0.0])
    assert found.mean[:, 1, 1] == pytest.approx([0.9, 0.8])
    assert found.n_words.tolist() == [[2, 0], [0, 1], [1, 0]]
    assert np.isnan(found.mean).sum() == 2 * 3


def test_phone_means_refuse_what_does_not_fit() -> None:
    totals = statistics.PhoneTotals(2, ["big-small"])
    with pytest.raises(ValueError, match=r"\(2, 3\): should be 2 layers by 1 phones"):
        totals.update("big-small", ["a"], np.zeros((2, 3)))
    with pytest.raises(KeyError, match="slow-fast"):
        totals.update("slow-fast", ["a"], np.zeros((2, 1)))
    empty = totals.compute()
    assert (empty.phones, empty.mean.shape, empty.n_words.shape) == ((), (2, 0, 1), (0, 1))


def test_memory_of_phone_means_does_not_grow_with_the_words() -> None:
    totals = statistics.PhoneTotals(1, ["big-small"])
    for i in range(1000):
        totals.update("big-small", ["a", "b"], np.array([[i / 1000, 1 - i / 1000]]))
    held = [v for v in vars(totals).values() if isinstance(v, dict)]
    assert max(len(v) for v in held) == 2
    assert totals.compute().mean[0, :, 0] == pytest.approx([0.4995, 0.5005])


def test_curves_average_a_words_rows_first() -> None:
    values = np.array([[0.2, 1.0], [0.4, 1.0], [0.9, 1.0], [0.5, 0.0]])
    words = ["en/a", "en/a", "en/b", "en/a"]
    rows = ["big-small"] * 3 + ["fast-slow"]
    known = ["fast-slow", "big-small", "hard-soft"]
    found = statistics.dimension_curves(values, words, rows, known, seed=0)
    assert found.value.shape == (3, 2)
    assert found.value[0] == pytest.approx([0.5, 0.0])
    assert found.value[1] == pytest.approx([(0.3 + 0.9) / 2, 1.0])
    assert np.isnan(found.value[2]).all() and np.isnan(found.low[2]).all()
    # Two words: a resample is (a, a), (a, b) or (b, b).
    assert (found.low[1, 0], found.high[1, 0]) == pytest.approx((0.3, 0.9))
    assert (found.low[1, 1], found.high[1, 1]) == (1, 1)


def test_curves_have_the_interval_of_a_mean_and_repeat_with_the_seed() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, (400, 1))
    words = [f"w{i}" for i in range(400)]

    def curves(seed: int) -> np.ndarray:
        return np.array(
            statistics.dimension_curves(values, words, ["x-y"] * 400, ["x-y"], seed=seed)
        )

    value, low, high = curves(1)[:, 0, 0]
    error = 1.96 * values.std() / 20  # the standard error of a mean of 400
    assert (value - low, high - value) == pytest.approx((error, error), rel=0.2)
    assert (curves(1) == curves(1)).all()
    assert (curves(1) != curves(2)).any()


def test_the_baseline_holds_noise_and_not_a_planted_phone() -> None:
    rng = np.random.default_rng(5)
    n_words = 60
    phones = np.tile(["a", "b", "c"], n_words)
    words = np.repeat([f"w{i}" for i in range(n_words)], 3)
    values = rng.normal(0.5, 0.05, (3 * n_words, 2))
    values[phones == "b", 1] += 0.2
    shuffled = statistics.shuffle_phones(values, list(phones), list(words), seed=0)
    labels, found = shuffled.labels, shuffled.estimate
    assert labels == ("a", "b", "c")
    assert found.value.shape == (2, 3)
    assert found.value[1, 1] == pytest.approx(values[phones == "b", 1].mean())
    inside = (found.low <= found.value) & (found.value <= found.high)
    assert inside[0].tolist() == [True, True, True]
    assert not inside[1, 1]
    again = statistics.shuffle_phones(values, list(phones), list(words), seed=0).estimate
    assert (again.low == found.low).all()


def test_the_baselines_means_are_those_of_phone_totals() -> None:
    rng = np.random.default_rng(2)
    words = [f"w{i}" for i in rng.integers(0, 5, 40)]
    phones = [str(p) for p in rng.choice(["a", "e", "m"], 40)]
    values = rng.random((40, 3))
    totals = statistics.PhoneTotals(3, ["x-y"])
    for word in sorted(set(words)):
        rows = [i for i, w in enumerate(words) if w == word]
        totals.update("x-y", [phones[i] for i in rows], values[rows].T)
    expected = totals.compute()
    shuffled = statistics.shuffle_phones(values, phones, words, seed=0, n_permutations=2)
    labels, found = shuffled.labels, shuffled.estimate
    assert labels == expected.phones
    assert found.value == pytest.approx(expected.mean[:, :, 0])
    with pytest.raises(ValueError, match="at least 1 unit"):
        statistics.shuffle_phones(values[:0], [], [], seed=0)


def test_one_phone_alone_cannot_be_shuffled() -> None:
    values = np.array([[0.2], [0.6], [0.8]])
    found = statistics.shuffle_phones(values, ["a"] * 3, ["v", "v", "w"], seed=0).estimate
    # ((0.2 + 0.6) / 2 + 0.8) / 2
    assert [float(x[0, 0]) for x in found] == pytest.approx([0.6, 0.6, 0.6])
