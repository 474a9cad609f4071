"""A checkpoint is read only when it is one: a file that is anything else stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook_lib.databases import Database
from runbook_lib.errors import DatabaseError
from runbook_lib.tables import checkpoint
from runbook_lib.tables.checkpoint import Checkpoint
from runbook_lib.tables.result import Comparison, TableResult

SIDES = [Database("postgresql", "127.0.0.1", 5432, name, "postgres", "x") for name in ("source", "target")]


def opened(path: Path) -> Checkpoint:
    with Checkpoint(path, *SIDES, [], "md5") as one:
        return one


@pytest.mark.parametrize(
    "content",
    [
        "one line, no newline", '{"x": 1}\nlast line', "\n", '{"comparison": {"mine": 1}}', '{"comparison": 3}\nrest',
        '{"comparison": "another"}\n{"tab', "{",
    ],
)  # fmt: skip
def test_a_file_that_is_no_checkpoint_of_ours_stays_as_it_was(tmp_path: Path, content: str) -> None:
    (file := tmp_path / "notes.txt").write_text(content)
    with pytest.raises(DatabaseError, match=r"is not a checkpoint of a comparison|belongs to another comparison"):
        opened(file)
    assert file.read_text() == content


def test_rows_that_were_known_otherwise_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(file := tmp_path / "done.jsonl")
    opened(file)
    with pytest.raises(DatabaseError, match="version of a server or of this library"):
        Checkpoint(file, *SIDES, [], ("md5", 18, 18))
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(DatabaseError, match="version of a server or of this library"):
        opened(file)


def test_two_comparisons_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    with (
        Checkpoint(file := tmp_path / "done.jsonl", *SIDES, [], "md5"),
        pytest.raises(DatabaseError, match="Another comparison uses the checkpoint"),
    ):
        opened(file)
    opened(file)


def test_a_broken_line_in_a_checkpoint_is_an_error_and_cuts_nothing_off(tmp_path: Path) -> None:
    opened(file := tmp_path / "done.jsonl")
    content = file.read_text() + '{"nothing": 1}\n{"tab'
    file.write_text(content)
    with pytest.raises(DatabaseError, match="is not a checkpoint"):
        opened(file)
    assert file.read_text() == content


def test_half_a_first_line_of_our_own_is_begun_anew(tmp_path: Path) -> None:
    opened(file := tmp_path / "done.jsonl")
    whole = file.read_text()
    file.write_text(whole[:40])
    opened(file)
    assert file.read_text() == whole


def test_an_empty_file_is_a_checkpoint_that_has_not_begun(tmp_path: Path) -> None:
    (file := tmp_path / "done.jsonl").touch()
    opened(file)
    assert file.read_text().startswith('{"comparison": ')


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be used: Is a directory"):
        opened(tmp_path)


def test_what_was_read_at_several_moments_is_said_before_the_verdict() -> None:
    table = TableResult("shop.t", source_rows=2, target_rows=2)
    found = Comparison((table,), "md5", moments=2)
    assert found.reason.startswith("As each part was when it was read, at 2 moments: 2 rows in 1 table are the same")
    assert repr(found).startswith("The rows were the same. As each part was when it was read, at 2 moments: ")
    assert Comparison((table,), "md5").reason.startswith("2 rows in 1 table are the same")
