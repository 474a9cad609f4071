"""Environment files: what is valid, and what a person reads when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runbook_lib.environment import Environment
from runbook_lib.errors import SettingsError
from runbook_lib.runs.plan import steps
from runbook_lib.runs.run import parameter_names
from runbook_lib.settings import PACKAGE_ROOT, knobs, load_environment

PARAMETERS = sorted((PACKAGE_ROOT / "parameters").glob("*.yaml"))


def changed(tmp_path: Path, **changes: object) -> str:
    data = yaml.safe_load((PACKAGE_ROOT / "parameters" / "lab.yaml").read_text())
    data.update({"environment": "mine", **changes})
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in data.items() if value != "REMOVE"}))
    return str(path)


@pytest.mark.parametrize("path", PARAMETERS, ids=lambda path: path.stem)
def test_every_environment_file_is_valid_and_named_like_its_file(path: Path) -> None:
    assert load_environment(str(path)).environment == path.stem


def test_lab_yaml_is_complete() -> None:
    given = yaml.safe_load((PACKAGE_ROOT / "parameters" / "lab.yaml").read_text())
    assert set(given) == set(Environment.model_fields)


def test_production_example_creates_nothing_and_allows_nothing() -> None:
    production = load_environment("production.example")
    assert not production.allow_changes
    assert production.confirm is None
    assert not production.notebooks.create_test_file.create


def test_an_unknown_key_names_the_key_the_file_and_the_nearest_valid_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mine\.yaml: unknown key 'acount'\. Did you mean 'account'\?"):
        load_environment(changed(tmp_path, acount="1"))


def test_an_unknown_nested_key_names_the_nearest_valid_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown key 'regions\.clowd'\. Did you mean 'cloud'\?"):
        load_environment(changed(tmp_path, regions={"clowd": "a", "cloud": "b", "premises": "c"}))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the key 'regions' is missing"):
        load_environment(changed(tmp_path, regions="REMOVE"))


def test_an_unknown_environment_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"Did you mean 'lab'\?"):
        load_environment("lob")


def test_the_environment_is_the_files_own_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="must be the file's own name, mine"):
        load_environment(changed(tmp_path, environment="lab"))


def test_a_mount_is_not_compared_with_itself(tmp_path: Path) -> None:
    server = {"instance": "x", "source_mount": "/mnt/data", "share_mount": "/mnt/data/"}
    with pytest.raises(SettingsError, match="proves nothing"):
        load_environment(changed(tmp_path, application_server=server))


def test_a_number_for_an_account_keeps_its_leading_zeros(tmp_path: Path) -> None:
    assert load_environment(changed(tmp_path, account=12345678901, confirm=None)).account == "012345678901"


def test_what_a_cell_passes_beats_the_environment_which_beats_the_default(tmp_path: Path) -> None:
    loaded = load_environment(changed(tmp_path, notebooks={"02_run_datasync_task": {"timeout_minutes": 7}}))
    assert knobs(loaded, "02_run_datasync_task", {"timeout_minutes": None}).timeout_minutes == 7
    assert knobs(loaded, "02_run_datasync_task", {"timeout_minutes": 3}).timeout_minutes == 3
    assert knobs(loaded, "03_inspect_transfer_stats", {}).history == 5


def test_a_knob_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="timeout_minutes"):
        knobs(load_environment("lab"), "02_run_datasync_task", {"timeout_minutes": "soon"})


def test_no_key_of_an_environment_file_overwrites_a_knob_when_papermill_injects_the_file() -> None:
    for step in steps():
        assert set(Environment.model_fields) & parameter_names(step) <= {"environment", "confirm"}


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("environment: mine\napproval:\n  required: true\n  required: false\n")
    with pytest.raises(SettingsError, match=r"(?s)mine\.yaml .*the key 'required' is given twice.*line 4"):
        load_environment(str(path))


def test_gentle_is_never_harsher_than_the_environment(tmp_path: Path) -> None:
    path = changed(tmp_path, inventory={"entries_per_second": 500, "requests_per_second": 900})
    assert load_environment(path).inventory.gently() == {
        "processes": 1, "entries_per_second": 500, "bytes_per_second": 50e6, "requests_per_second": 50,
    }  # fmt: skip
