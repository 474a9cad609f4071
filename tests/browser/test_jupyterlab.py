"""A participant opens a notebook in JupyterLab, runs all cells, and sees every check hold."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.throwaway import ThrowawayLab

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb"))
SCREENSHOTS = Path(os.environ["RUNBOOK_SCREENSHOTS"]) if os.environ.get("RUNBOOK_SCREENSHOTS") else None


@pytest.fixture(scope="module")
def jupyterlab(lab: ThrowawayLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab on a working copy without outputs, as `make jupyter` opens it; its URL with %s for the notebook."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium: .ci/run installs it")
        pytest.skip("there is no Chromium on this machine")
    lab.reset("00")
    home, token = tmp_path_factory.mktemp("jupyter"), secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_TOKEN": token,
    }
    environment.pop("RUNBOOK_UI", None)  # a person is there: JupyterLab says so itself
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "runbook_lib.cli", "jupyter", "--no-browser", "--ServerApp.ip=127.0.0.1",
             f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True"],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        base = f"http://127.0.0.1:{port}"
        try:
            _wait_for(f"{base}/api/status?token={token}", server, home / "log")
            yield f"{base}/lab/tree/%s.ipynb?token={token}&reset"
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(480):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.25)
    pytest.fail(log.read_text()[-2000:])


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A tab of one browser for all notebooks."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.set_default_timeout(90_000)
        yield page
        browser.close()


@pytest.mark.parametrize("name", NAMES)
def test_run_all_shows_every_check_pass(jupyterlab: str, page: Page, name: str) -> None:
    """In one tab and one lab, in order, as a participant does it: each notebook needs what those before it did.

    So the first that fails, or is slower than the time it has, makes all after it fail: look at that one.
    """
    from playwright.sync_api import expect

    page.goto(jupyterlab % name)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    # the indicator says "idle" while there is no kernel yet: the status bar's text is what tells
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=120_000)
    assert page.locator(".jp-OutputArea-output").count() == 0, "the working copy shows answers"
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    summary = page.get_by_text("checks hold. Recorded in run")
    expect(summary.last).to_be_visible(timeout=240_000)
    if SCREENSHOTS:
        page.screenshot(path=SCREENSHOTS / f"{name}.png")
    said = summary.last.inner_text()
    held, _, total = said.partition(" of ")
    assert held == total.split()[0], said
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert page.get_by_text("FAIL", exact=True).count() == 0
    assert page.get_by_text("Jupyter news").count() == 0, "JupyterLab asks whether it may look for news"
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
