"""Some seconds of the fuzz run, always the same cases first; `make test-fuzz` takes ten minutes and other ones."""

from tests.fuzz import fuzz


def test_damaged_files_are_read_or_refused_by_name(tmp_path) -> None:
    tried, findings = fuzz(seconds=15, seed=1, folder=tmp_path)
    assert not findings, "\n".join(findings)
    assert min(tried.values()) > 3
