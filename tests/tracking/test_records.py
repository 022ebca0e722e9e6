from hypothesis import given, settings
from hypothesis import strategies as st

from ftlab.tracking.records import CellKey, RunRecord, latest_per_seed

statuses = st.sampled_from(["FINISHED", "FAILED", "KILLED", "RUNNING"])
attempts = st.lists(st.tuples(st.integers(0, 2), statuses), max_size=9)


def record(number, seed, status):
    tags = {"ftlab.attempt": str(number + 1)}
    return RunRecord(f"r{number}", "c", seed, status, "", {}, {}, tags, number, None)


@settings(deadline=None)  # shared machines
@given(attempts, st.randoms())
def test_latest_per_seed__finished_wins_then_the_later_attempt(tries, random):
    runs = [record(number, *one) for number, one in enumerate(tries)]
    random.shuffle(runs)
    chosen = latest_per_seed(runs)
    assert [run.seed for run in chosen] == sorted({seed for seed, _ in tries})
    for run in chosen:
        rivals = [other for other in runs if other.seed == run.seed]
        finished = [other for other in rivals if other.status == "FINISHED"]
        assert run.attempt == max(other.attempt for other in finished or rivals)
        assert run.status == "FINISHED" or not finished


def test_digest__fields_cannot_run_into_each_other():
    a = CellKey("s", "b", "d", "t", "c")
    assert a.digest == CellKey("s", "b", "d", "t", "c").digest
    others = [CellKey("sb", "", "d", "t", "c"), CellKey("s", "d", "b", "t", "c")]
    assert a.digest not in {other.digest for other in others}
