"""A report of hostile notebooks in a real browser: nothing runs, nothing is fetched, and it prints to A4."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from runbook_lib.evidence.seal import seal
from tests.browser.test_jupyterlab import CHROMIUM, FLAGS, SCREENSHOTS
from tests.records import check, synthetic
from tests.test_verify import edit

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one dot
ATTACKS = (
    "<script>window.ran = 1</script>",
    "<svg onload='window.ran = 1'></svg>",
    "<img src=x onerror='window.ran = 1'>",
    "<a href='javascript:window.ran = 1'>the proof</a>",
    "<meta http-equiv='refresh' content='0; url=http://127.0.0.1:9/'>",
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "<style>body { background: url(http://127.0.0.1:9/seen) }</style>",
    "<link rel='stylesheet' href='http://127.0.0.1:9/'><form action='http://127.0.0.1:9/'>",
    "</pre></td></table><script>window.ran = 1</script>",
    '" onmouseover="window.ran = 1" x="',
    "{{ 7 * 7 }}{% raw %}",
)
WATCH = """
window.refused = [];
document.addEventListener('securitypolicyviolation', event => window.refused.push(event.violatedDirective));
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sealed run of which everything that a notebook decides is an attack."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium: .ci/run installs it")
        pytest.skip("there is no Chromium on this machine")
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "signing-key.pem"))
    attack = " ".join(ATTACKS)
    name = "javascript:window.ran = 1"
    folder = synthetic(
        tmp_path, notebooks={name: [check(attack, "PASS", attack, attack), check("It is equal", "FAIL", 1, 2)]}
    )
    outputs = [
        {"output_type": "display_data", "data": {"text/plain": attack, "text/html": attack, "image/svg+xml": attack}},
        {"output_type": "display_data", "data": {"text/plain": attack, "image/png": PNG}},
        {"output_type": "stream", "name": "stdout", "text": attack},
    ]
    edit(folder.path, name, lambda cells: cells[2].update(outputs=outputs))
    return seal(folder)


def test_nothing_of_a_hostile_notebook_runs_or_calls_home_and_it_prints_to_a4(hostile: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.add_init_script(WATCH)
        page.goto((hostile / "report.html").as_uri())
        page.wait_for_load_state("load")
        for link in page.locator("a[href*='ipynb']").all()[:2]:
            assert (link.get_attribute("href") or "").startswith("javascript%3A")
        page.locator("h1").hover()
        assert page.locator("h1").inner_text() == "CHECK FAILED: 1 of 2 checks holds"
        assert page.evaluate("window.ran") is None
        assert page.evaluate("window.refused") == [], "the policy had to stop what should have been text"
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        assert page.locator("script, iframe, form, link, body svg, [onload], [onerror], [onmouseover]").count() == 0
        assert page.get_by_text("<script>window.ran = 1</script>").count() > 0, "what was shown is there to read"
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, "the page is wider than its window"
        pdf = page.pdf(prefer_css_page_size=True, path=SCREENSHOTS / "report.pdf" if SCREENSHOTS else None)
        sizes = {tuple(round(float(n)) for n in box.split()) for box in re.findall(rb"/MediaBox ?\[([^\]]*)\]", pdf)}
        assert sizes == {(0, 0, 595, 842)}, "A4 in points"
        browser.close()
