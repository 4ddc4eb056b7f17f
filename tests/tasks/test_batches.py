import numpy as np
import pytest

from orchestrator.tasks.batches import (
    BUCKET_ROWS,
    POOL_ROWS,
    epoch_order,
    evaluation_batches,
    evaluation_rows,
    hashes,
    subset,
    training_batches,
)


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    return random.integers(4, 128, 1500), np.arange(10, 1510)


def stream(rows, batch_size, steps, seed=0, start=0):
    return np.concatenate(list(training_batches(rows[0], rows[1], seed, batch_size, start, steps)))


def test_training_order_does_not_depend_on_batch_size(rows):
    np.testing.assert_array_equal(stream(rows, 8, 500), stream(rows, 32, 125))


def test_epoch_has_every_row_once(rows):
    seen = stream(rows, 100, 30)
    for epoch in (seen[:1500], seen[1500:]):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(1500))
    assert not np.array_equal(seen[:1500], seen[1500:])


@pytest.mark.parametrize("start", [0, 1, 92, 93, 94, 150])
def test_training_batches_continue_at_any_step(rows, start):
    through = list(training_batches(rows[0], rows[1], 3, 16, 0, 200))
    np.testing.assert_array_equal(list(training_batches(rows[0], rows[1], 3, 16, start, 200)), through[start:])


def test_training_batch_may_be_larger_than_the_data():
    (batch,) = training_batches(np.array([5, 6, 7]), np.array([1, 2, 3]), 0, 8, 0, 1)
    assert sorted(np.bincount(batch)) == [2, 3, 3]


def test_epochs_group_rows_differently(rows):
    first, second = (epoch_order(rows[0], rows[1], 0, epoch)[:1472].reshape(-1, BUCKET_ROWS) for epoch in (0, 1))
    overlap = [max(len(np.intersect1d(bucket, other)) for other in second) for bucket in first]
    assert np.median(overlap) < BUCKET_ROWS * 0.75


def test_epoch_order_differs_between_seeds(rows):
    assert not np.array_equal(stream(rows, 10, 10, seed=0), stream(rows, 10, 10, seed=1))


def test_epoch_groups_similar_lengths_in_shuffled_buckets(rows):
    buckets = rows[0][stream(rows, BUCKET_ROWS, 1500 // BUCKET_ROWS)].reshape(-1, BUCKET_ROWS)
    assert np.median(np.ptp(buckets, axis=1)) <= 128 * BUCKET_ROWS / POOL_ROWS * 2
    means = buckets.mean(axis=1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.5


def test_epoch_order_survives_removal_of_a_row(rows):
    lengths, ids = rows
    before = ids[epoch_order(lengths, ids, 0, 0)]
    after = ids[1:][epoch_order(lengths[1:], ids[1:], 0, 0)]
    position = {row: index for index, row in enumerate(before)}
    distances = [abs(position[row] - index) for index, row in enumerate(after)]
    assert np.quantile(distances, 0.9) <= 2 * BUCKET_ROWS
    assert np.mean(np.array(distances) <= 2) > 0.5


def test_epoch_order_depends_on_row_ids_not_positions(rows):
    lengths, ids = rows
    again = np.random.default_rng(1).permutation(1500)
    # Rows of one length may change places within a bucket's length class, the set of each bucket's ids may not.
    first = ids[epoch_order(lengths, ids, 0, 0)]
    second = ids[again][epoch_order(lengths[again], ids[again], 0, 0)]
    np.testing.assert_array_equal(first, second)


def test_hashes_are_uniform_and_uncorrelated():
    values = hashes(np.arange(4096), 0, 0)
    bits = (values[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.05
    assert len({int(hashes(np.array([1]), seed, epoch)[0]) for seed in range(50) for epoch in range(-25, 25)}) == 2500


def test_evaluation_batches_are_stably_sorted_by_length():
    lengths = np.array([3, 1, 2, 1, 3])
    assert [batch.tolist() for batch in evaluation_batches(lengths, 2)] == [[1, 3], [2, 0], [4]]


def test_evaluation_batches_are_bounded_by_padded_tokens():
    lengths = np.array([9, 2, 3, 3, 40, 8, 2])
    batches = [batch.tolist() for batch in evaluation_batches(lengths, 3, tokens=16)]
    assert batches == [[1, 6, 2], [3, 5], [0], [4]]  # the longest row exceeds the bound on its own


@pytest.mark.parametrize("tokens", [1, 64, 500, 10_000])
def test_evaluation_batches_hold_every_row_once(tokens):
    lengths = np.random.default_rng(0).integers(1, 200, 300)
    batches = evaluation_batches(lengths, 16, tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    assert all(len(b) == 1 or (len(b) <= 16 and len(b) * lengths[b].max() <= tokens) for b in batches)
    longest = int(lengths.max())
    assert evaluation_rows(longest, 16, tokens) == min(16, max(1, tokens // longest))


def test_evaluation_batches_of_short_rows_are_full():
    lengths = np.full(200, 256)
    assert [len(batch) for batch in evaluation_batches(lengths, 64)] == [64, 64, 64, 8]


def test_subset_keeps_the_shares_of_the_classes():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    indices = subset(np.arange(1000), 100, 0, labels)
    np.testing.assert_array_equal(np.bincount(labels[indices]), [70, 20, 10])
    assert np.all(np.diff(indices) > 0)


def test_subset_is_a_fixed_draw():
    ids = np.arange(1000)
    np.testing.assert_array_equal(subset(ids, 50, 0), subset(ids, 50, 0))
    assert not np.array_equal(subset(ids, 50, 0), subset(ids, 50, 1))
    np.testing.assert_array_equal(subset(ids, 2000, 0), ids)
    # Losing a row that was not drawn changes nothing.
    drawn = subset(ids, 50, 0)
    left = np.delete(ids, np.setdiff1d(ids, drawn)[0])
    np.testing.assert_array_equal(left[subset(left, 50, 0)], drawn)
