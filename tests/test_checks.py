"""Verdicts, and what stays in an executed notebook."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from runbook_lib.checks import judge, judge_equal
from runbook_lib.display import Table, size
from runbook_lib.redaction import MASK, masked


def test_equal_is_pass_and_unequal_names_both() -> None:
    assert judge_equal("x", 2, 2).verdict == "PASS"
    failed = judge_equal("x", 2, 3)
    assert failed.verdict == "FAIL"
    assert failed.sentence() == "expected 2, seen 3"


def test_the_body_is_json_and_has_no_times() -> None:
    assert json.loads(json.dumps(judge_equal("x", (1, 2), [1, 2]).body())) == {
        "name": "x", "verdict": "PASS", "expected": [1, 2], "seen": [1, 2],
    }  # fmt: skip


@dataclass
class Found:
    ok: bool
    reason: str


def test_a_finding_that_is_not_ok_fails_and_says_why() -> None:
    failed = judge("x", Found(False, "because"))
    assert (failed.verdict, failed.sentence()) == ("FAIL", "because")


def test_what_was_not_asked_for_is_neither_passed_nor_failed() -> None:
    assert judge("x", Found(False, "nothing was done"), asked=False).verdict == "NOT ASKED"


def test_events_and_notebook_carry_the_same_values_whatever_they_are() -> None:
    odd = os.fsdecode(b"caf\xe9")
    found = judge_equal(odd, {odd: [float("inf"), 1.5]}, {odd: [float("inf"), 1.5]})
    assert found.ok
    message = json.dumps(found.body(), ensure_ascii=False, allow_nan=False).encode()  # as Jupyter sends it
    assert json.loads(message) == found.body() == {
        "name": "caf\\udce9", "verdict": "PASS",
        "expected": {"caf\\udce9": ["inf", 1.5]}, "seen": {"caf\\udce9": ["inf", 1.5]},
    }  # fmt: skip
    assert not judge_equal("NaN is equal to nothing", float("nan"), float("nan")).ok


def test_a_long_table_says_how_many_more() -> None:
    table = Table(("n",), [(n,) for n in range(25)], limit=20)
    assert "… and 5 more" in str(table)
    assert "… and 5 more" in table.html()


def test_html_is_escaped() -> None:
    assert "<script>" not in Table(("n",), [("<script>",)]).html()


def test_bytes_are_readable() -> None:
    assert size(1234567) == "1,234,567 bytes"


def test_secrets_are_masked_by_name_and_by_pattern() -> None:
    found = masked({"Password": "hunter2", "NextToken": "abc", "text": "key AKIA" + "A" * 16, "url": "pg://u:p@h/db"})
    assert found == {"Password": MASK, "NextToken": "abc", "text": f"key {MASK}", "url": f"pg://{MASK}@h/db"}
