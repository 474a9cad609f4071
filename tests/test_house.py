"""The house is in order: one list of dependencies, a lock that installs anywhere, no file that names one machine."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def locked() -> dict[str, list[Requirement]]:
    """The lock's requirements by name; several when they differ by platform or Python."""
    found: dict[str, list[Requirement]] = {}
    for line in LOCK.replace("\\\n", " ").splitlines():
        text = line.split(" --hash=")[0].strip()
        if text and not text.startswith("#"):
            requirement = Requirement(text)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def direct() -> list[Requirement]:
    """What pyproject.toml asks for, with all extras."""
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    return [Requirement(text) for text in [*PROJECT["dependencies"], *extras]]


def test_the_lock_names_no_address_and_no_option() -> None:
    code = [line.strip() for line in LOCK.splitlines() if not line.strip().startswith("#")]
    assert not [line for line in code if "://" in line or "@" in line.split("--hash=")[0]]
    assert not [line for line in code if line.startswith("-") and not line.startswith("--hash=sha256:")]
    assert "://" not in LOCK


def test_every_locked_requirement_is_pinned_and_hashed() -> None:
    for line in LOCK.replace("\\\n", " ").splitlines():
        if line and not line.lstrip().startswith("#"):
            assert re.match(r"^[A-Za-z0-9._-]+==[^ ;]+ ", line), line[:80]
            assert "--hash=sha256:" in line, line[:80]


@pytest.mark.parametrize("wanted", direct(), ids=str)
def test_the_lock_is_in_step_with_pyproject(wanted: Requirement) -> None:
    found = locked().get(canonicalize_name(wanted.name), [])
    assert found, f"{wanted} is not locked: run `make lock`"
    for requirement in found:
        (pin,) = requirement.specifier
        assert wanted.specifier.contains(pin.version, prereleases=True), f"{requirement}, not {wanted}: `make lock`"


def test_a_production_install_needs_neither_the_lab_nor_jupyterlab_nor_the_tests() -> None:
    core = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert not core & {"moto", "jupyterlab", "pytest", "flask", "watchdog", "pillow", "uv"}


def test_conda_has_no_second_list_of_dependencies() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, wheels = environment["dependencies"]
    assert re.fullmatch(r"python=3\.\d+", python)
    assert pip == "pip"
    assert wheels == {"pip": ["-r requirements.lock"]}


@pytest.mark.network
def test_pip_installs_exactly_what_conda_asks_for(tmp_path: Path) -> None:
    # Here pip checks names, pins and hash mode; the files themselves were hashed when .venv was made from this lock.
    wheels = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][2]["pip"]
    (tmp_path / "wheels.txt").write_text("\n".join(wheels))  # as conda does
    (tmp_path / "requirements.lock").write_text(LOCK)
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--only-binary", ":all:"]
    done = subprocess.run(
        [*pip, "--require-hashes", "-r", "wheels.txt"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("target", ["run", "test", "jupyter", "lock", "references", "benchmark"])
def test_make_has_the_target_and_prepares_the_environment_first(target: str) -> None:
    rule = re.search(rf"^{target}:(.*)$", MAKEFILE, re.MULTILINE)
    assert rule is not None
    assert "setup" in rule[1] or target == "lock"  # `lock` can repair a lock that does not install


def test_the_test_command_runs_every_kind_of_check() -> None:
    shown = subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for check in ("ruff check", "ruff format --check", "mypy --strict", "lint-imports", "pytest -n", "--nbval"):
        assert check in shown


def test_the_set_up_writes_its_stamp_last() -> None:
    recipe = MAKEFILE.split("\n$(STAMP):")[1].strip().splitlines()
    assert recipe[1].strip() == "@rm -f $@"
    assert recipe[-1].strip() == "@touch $@"


def test_continuous_integration_runs_the_readmes_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    assert jobs["linux"]["steps"][-1]["run"] == ".ci/run"
    assert jobs["macos"]["steps"][-1]["run"] == "make test"


FOREIGN = {
    "a path of one machine": re.compile(r"(?<![\w.])/(home|Users|root|work|private)/[\w.]"),
    "a package index": re.compile(r"--(extra-)?index-url|--find-links|//(pypi|files\.pythonhosted|conda\.anaconda)\."),
    "a private address": re.compile(r"\b(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))\.\d+\.\d+\b"),
}


def tracked() -> list[Path]:
    """The repository's text files, new ones included; what is ignored is not."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names(what: str) -> None:
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if FOREIGN[what].search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_what_every_kernel_imports_is_light() -> None:
    code = "import sys; from runbook_lib import Runbook; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"duckdb", "jsonschema", "matplotlib", "moto", "nbformat", "numpy", "papermill", "pyarrow"}
    assert not heavy & set(loaded)


def test_the_package_is_installed_from_here() -> None:
    found = importlib.util.find_spec("runbook_lib")
    assert found is not None and found.origin is not None
    assert Path(found.origin).parent.parent == ROOT
