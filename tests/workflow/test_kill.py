"""Three kills of the whole workflow; `make test-kill` makes twenty."""

from tests.kill import run


def test_a_killed_workflow_ends_as_an_unbroken_one(tmp_path) -> None:
    count = run(tmp_path, kills=3, seed=1, categories=("bolt",))
    assert (count.kills, count.retrained) == (3, 0)
