from hypothesis import given
from hypothesis import strategies as st

from ftlab.data.sequence_packing import balanced, first_fit


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 30))
def test_first_fit__each_sequence_once_and_rows_within_the_width(lengths, width):
    rows = first_fit(lengths, width)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[i] for i in row) <= width
    within = [length for length in lengths if length <= width]
    if len(within) == len(lengths):  # no two rows could be one
        totals = sorted(sum(lengths[i] for i in row) for row in rows)
        assert len(totals) < 2 or totals[0] + totals[1] > width


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 30))
def test_balanced__has_the_rows_of_first_fit_and_none_longer(lengths, width):
    plain, rows = first_fit(lengths, width), balanced(lengths, width)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert len(rows) <= len(plain)

    def longest(layout):
        return max(sum(lengths[i] for i in row) for row in layout)

    assert longest(rows) <= longest(plain)


def test_balanced__leaves_no_row_almost_empty():
    """16 examples of a few lengths in rows of 128, as of prompts: first fit pays for 4 x 128."""
    lengths = [20, 41, 22, 33, 18, 40, 27, 25, 19, 36, 30, 24, 21, 38, 29, 17]
    rows = balanced(lengths, 128)
    assert len(rows) == len(first_fit(lengths, 128)) == 4
    assert max(sum(lengths[i] for i in row) for row in rows) <= 118  # 440 tokens in all
