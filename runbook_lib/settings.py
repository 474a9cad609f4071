"""Which world does a runbook work on, and with which knobs? Finds and reads `parameters/<environment>.yaml`.

Precedence: what a cell or `-p` passes, over the environment's YAML, over the defaults of `environment`.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .environment import Environment, Notebooks
from .errors import SettingsError

Section = TypeVar("Section", bound=BaseModel)

PACKAGE_ROOT = Path(__file__).resolve().parent.parent


class Knobs:
    """A notebook's knobs after precedence, as attributes."""

    def __init__(self, values: BaseModel) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__["_values"]
        if name not in type(values).model_fields:
            raise AttributeError(f"this notebook has no knob {name!r}; it has {', '.join(type(values).model_fields)}")
        return getattr(values, name)

    def as_dict(self) -> dict[str, Any]:
        """All knobs and their values."""
        return self._values.model_dump()

    def __repr__(self) -> str:
        return "\n".join(f"{name} = {value!r}" for name, value in self.as_dict().items()) or "no knobs"


def project_root() -> Path:
    """The folder with `parameters/` and `notebooks/`: RUNBOOK_HOME, else the nearest above here, else the checkout."""
    forced = os.environ.get("RUNBOOK_HOME")
    if forced:
        return Path(forced)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "parameters").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return PACKAGE_ROOT


def environment_file(environment: str) -> Path:
    """The file of an environment given by name or by path."""
    if environment.endswith((".yaml", ".yml")) or os.sep in environment:
        path = Path(environment).expanduser()
        path = path if path.is_absolute() or path.exists() else project_root() / path
    else:
        path = project_root() / "parameters" / f"{environment}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise SettingsError(
            f"environment {environment!r}: there is no {path}." + _nearest(environment, known, "environment")
        )
    return path


def settings_hash(environment: str) -> str:
    """The SHA-256 of an environment's file."""
    return hashlib.sha256(environment_file(environment).read_bytes()).hexdigest()


class _Once(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML's last one would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; each of its keys has to be new."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                mark = key.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is given twice", mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_environment(environment: str) -> Environment:
    """Read and validate an environment file; `SettingsError` names the key, the file and the nearest valid key."""
    path = environment_file(environment)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Once)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path} must be a mapping of settings, it is {type(data).__name__}")
    try:
        loaded = Environment.model_validate(data)
    except ValidationError as error:
        _explain(error, Environment, str(path))
    if loaded.environment != path.stem:
        raise SettingsError(f"{path}: `environment: {loaded.environment}` must be the file's own name, {path.stem}.")
    return loaded


def knobs(environment: Environment, notebook: str, passed: Mapping[str, Any]) -> Knobs:
    """The knobs of a notebook: those passed and not None win over the environment's."""
    fields = {field.alias or name: name for name, field in Notebooks.model_fields.items()}
    if notebook not in fields:
        raise SettingsError(f"there is no notebook {notebook!r}." + _nearest(notebook, list(fields), "notebook"))
    current: BaseModel = getattr(environment.notebooks, fields[notebook])
    given = {name: value for name, value in passed.items() if value is not None}
    return Knobs(overridden(current, given, f"parameters of {notebook}"))


def overridden(section: Section, given: Mapping[str, Any], where: str) -> Section:
    """A section of settings in which what is given wins; `SettingsError` names a wrong key or value."""
    try:
        return type(section).model_validate(section.model_dump() | dict(given))
    except ValidationError as error:
        _explain(error, type(section), where)


def _nearest(name: str, known: list[str], noun: str) -> str:
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known {noun}s: {', '.join(known)}." if known else ""


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> NoReturn:
    """Turn pydantic's report into one sentence per key."""
    sentences = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            sentences.append(f"unknown key {key!r}." + _nearest(str(item["loc"][-1]), _keys(model, item["loc"]), "key"))
        elif item["type"] == "missing":
            sentences.append(f"the key {key!r} is missing.")
        elif item["type"] == "secret":  # what was given may be the password itself
            sentences.append(f"{key}: {item['msg']}.")
        else:
            sentences.append(f"{key}: {item['msg']}, not {item['input']!r}.")
    raise SettingsError(f"{where}: " + " ".join(sentences)) from error


def _keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The valid keys beside the one at a location."""
    for part in location[:-1]:
        for name, field in model.model_fields.items():
            if part in (name, field.alias):
                options = getattr(field.annotation, "__args__", (field.annotation,))
                model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items()]
