"""The first cases of the fuzz run, the same on every machine; `make test-fuzz` takes ten minutes and other ones."""

from tests.fuzz import fuzz

CASES = 100  # of each kind


def test_damaged_files_are_read_or_refused_by_name(tmp_path) -> None:
    tried, findings = fuzz(seed=1, folder=tmp_path, cases=CASES)
    assert not findings, "\n".join(findings)
    assert set(tried.values()) == {CASES}
