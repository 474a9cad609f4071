"""The report says the verdict first, is one file, runs nothing, prints, and can be heard."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from runbook_lib.evidence.files import REPORT
from runbook_lib.evidence.seal import seal
from tests.records import check, synthetic
from tests.test_verify import edit

ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}'
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "signing-key.pem"))


class Page(HTMLParser):
    """What is in a page: elements with attributes, and texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def report(tmp_path: Path, *verdicts: str) -> str:
    checks = [check(f"Statement {number}", verdict, 2, 2) for number, verdict in enumerate(verdicts)]
    return (seal(synthetic(tmp_path, notebooks={"01_look": checks})) / REPORT).read_text()


def test_the_verdict_comes_first(tmp_path: Path) -> None:
    page = Page(report(tmp_path / "good", "PASS", "NOT ASKED"))
    assert page.texts[page.texts.index("To the checks") + 1] == "PASSED: 1 of 1 check holds"
    html = report(tmp_path / "bad", "PASS", "FAIL", "PASS")
    assert "CHECK FAILED: 1 of 2 checks hold" in html
    assert html.index("CHECK FAILED") < html.index("01_look: Statement 1") < html.index("Who, where, when")


def test_nothing_from_a_notebook_runs_as_script(tmp_path: Path) -> None:
    folder = synthetic(tmp_path, notebooks={"01_look": [check(ATTACK, "PASS", ATTACK, ATTACK)]})
    outputs = [
        {"output_type": "execute_result", "data": {"text/plain": ATTACK, "text/html": ATTACK}},
        {"output_type": "display_data", "data": {"text/plain": ATTACK, "image/png": PNG}},
        {"output_type": "display_data", "data": {"text/plain": "no picture", "image/png": "PHNjcmlwdD4="}},
        {"output_type": "stream", "name": "stdout", "text": [ATTACK]},
    ]
    edit(folder.path, "01_look", lambda cells: cells[2].update(outputs=outputs))
    html = (seal(folder) / REPORT).read_text()
    page = Page(html)
    assert not page.named("script") and "49" not in page.texts
    assert [image["src"] for image in page.named("img")] == [f"data:image/png;base64,{PNG}"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "script-src" not in policy


def test_it_needs_no_network(tmp_path: Path) -> None:
    page = Page(report(tmp_path, "PASS"))
    assert not page.named("link") and not page.named("iframe") and not page.named("form")
    targets = [attributes.get("href") or attributes.get("src") or "" for _, attributes in page.elements]
    assert not [target for target in targets if "//" in target]


def test_each_check_links_into_the_executed_notebook(tmp_path: Path) -> None:
    page = Page(report(tmp_path, "PASS", "PASS"))
    links = [attributes["href"] for attributes in page.named("a")]
    assert {"01_look.ipynb#cell-id=check-0", "01_look.ipynb#cell-id=check-1"} <= set(links)


def test_each_file_that_is_hashed_can_be_opened_from_there(tmp_path: Path) -> None:
    page = Page(report(tmp_path, "PASS"))
    linked = {attributes["href"] for attributes in page.named("a")}
    assert {"01_look.ipynb", "events.jsonl"} <= linked


def test_a_screen_reader_finds_its_way(tmp_path: Path) -> None:
    page = Page(report(tmp_path, "PASS"))
    assert page.named("html") == [{"lang": "en"}]
    assert all(len(page.named(tag)) == 1 for tag in ("main", "header", "footer", "title", "h1"))
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert all(section["aria-labelledby"] in ids for section in page.named("section"))
    assert page.named("th") and all(cell.get("scope") in ("col", "row") for cell in page.named("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_colour_of_text_has_enough_contrast(tmp_path: Path) -> None:
    html = report(tmp_path, "PASS")
    backgrounds = ["#fff", "#f0f0f0", "#f6f6f6"]
    for colour in re.findall(r"[{;] ?color: (#\w+)", html):
        for background in backgrounds:
            bright, dark = sorted((luminance(colour), luminance(background)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (colour, background)


def test_it_prints_to_a4_and_has_a_box_to_sign(tmp_path: Path) -> None:
    html = report(tmp_path, "PASS")
    assert "size: A4" in html and "@media print" in html
    assert Page(html).texts.count("Acceptance") == 1


def test_who_where_hashes_calls_and_maskings_are_there(tmp_path: Path) -> None:
    folder = synthetic(tmp_path)
    folder.events("maskings", notebook="01_look", rules={"JSON web token": 3})
    path = seal(folder)
    html = (path / REPORT).read_text()
    subjects = json.loads((path / "run.json").read_text())["subject"]
    for said in ("mary on bridge", "123456789012", "eu-central-1", "11111111-2222", "JSON web token"):
        assert said in html, said
    assert all(one["digest"]["sha256"] in html for one in subjects if one["name"] != REPORT)


def test_sql_that_changed_a_database_and_comparisons_of_the_command_line_are_there(tmp_path: Path) -> None:
    folder = synthetic(tmp_path)
    record = folder.events.bind(notebook="03_inspect")
    sides = {"source": {"label": "the NFS server"}, "other": {"label": "the bucket"}}
    record("note", key="files compared", value={"ok": False, "level": "size", "reason": "1 size <b>", **sides})
    record("note", key="files compared", value="by hand")
    found = {"ok": False, "method": "md5", "reason": "shop.orders: 2 different.", "source": "a", "target": "b"}
    record("note", key="tables compared", value=found)
    record("note", key="tables compared", value={"ok": True})
    record("sql", database="postgresql://mary@db/shop", statement="select 2")
    record("sql", database="postgresql://mary@db/shop", statement="create index <x> on t (n)", changes=True)
    record("sql", database="postgresql://mary@db/shop", statement="select 1", changes=False)
    page = (seal(folder) / REPORT).read_text()
    texts = Page(page).texts
    assert (
        "compared: files, level size" in texts
        and "compared: tables, by md5" in texts
        and "1 size <b>" in texts
        and "Nothing failed." not in page
    )
    assert "1 statement, in order" in texts and "create index <x> on t (n)" in texts and "select 1" not in texts


def test_where_nothing_was_checked_nothing_is_called_good(tmp_path: Path) -> None:
    page = (seal(synthetic(tmp_path, notebooks={"01_look": []}, mode="interactive")) / REPORT).read_text()
    assert "Nothing was checked" in page and "Nothing failed" not in page
