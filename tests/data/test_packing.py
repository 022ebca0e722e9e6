from hypothesis import given
from hypothesis import strategies as st

from ftlab.data.packing import first_fit


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
