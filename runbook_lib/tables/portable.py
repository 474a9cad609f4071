"""What do different engines agree on? A float by its value, JSON by its meaning; the rest prints alike.

No engine prints another's JSON: the order of keys, blanks, escapes and the look of numbers differ. Of a float beyond
2^53 they may print more or fewer of its digits. So rows with either are digested as their engine prints them, which
may differ where nothing does and never the other way round; and where it differs, the rows are fetched and digested
here, in one form. (Without a key rows are not fetched: such a float may be told as different there.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from .dialect import SEPARATOR, Common
from .model import FREE, Field, Key, Kind, View


def by_client(view: View, common: Common) -> bool:
    """Whether rows that differ have to be digested here; rows are told apart by their key then."""
    return common.portable and bool(view.key) and any(part.kind in FORMS for part in view.fields)


def keyed(view: View, row: Sequence[str | None]) -> tuple[Key, bytes, tuple[str | None, ...]]:
    """A row that came as its key and its values: with its digest, and its floats and JSON in one form."""
    count = len(view.key)
    values = tuple(
        value if value is None or part.kind not in FORMS else FORMS[part.kind](value)
        for part, value in zip(view.fields, row[count:], strict=True)
    )
    return tuple(value or "" for value in row[:count]), _md5(view.fields, values), values


def _md5(fields: Sequence[Field], values: Sequence[str | None]) -> bytes:
    """The digest of a row's canonical values, as the dialects make it of theirs."""
    pairs = list(zip(fields, values, strict=True))
    free = [value for part, value in pairs if part.kind in FREE]
    terms = [value or "" for part, value in pairs if part.kind not in FREE]
    terms += ["-1" if value is None else str(len(value.encode())) for value in free]
    terms += [value for value in free if value is not None]
    return hashlib.md5(chr(SEPARATOR).join(terms).encode(), usedforsecurity=False).digest()


def meaning(text: str) -> str:
    """JSON with its keys sorted, without blanks, numbers by their value; text that is no JSON as it is.

    As it is, too, when a number's exponent or the nesting is beyond what can be read here.
    """
    try:
        return _dumped(json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse))
    except (ValueError, ArithmeticError, RecursionError):
        return text


FORMS: dict[Kind, Callable[[str], str]] = {"json": meaning, "float": lambda text: repr(float(text))}


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _dumped(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_dumped(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumped, value)) + "]"
    return _number(value) if isinstance(value, Decimal) else json.dumps(value)


def _number(value: Decimal) -> str:
    """A number by its value, of any length: 1, 1.0 and 10e-1 are one."""
    sign, digits, exponent = value.as_tuple()
    shown = "".join(map(str, digits)).lstrip("0")
    if not shown:
        return "0"
    short = shown.rstrip("0")
    power = int(exponent) + len(shown) - len(short)
    return f"{'-' if sign else ''}{short}{f'e{power}' if power else ''}"


def postgresql_float(own: str) -> str:
    """A float's shortest digits in PostgreSQL's SQL, as 0.15e2; what MySQL cannot hold in PostgreSQL's words."""
    text = f"abs({own}::float8)::text"
    mantissa = f"split_part({text}, 'e', 1)"
    digits = f"replace({mantissa}, '.', '')"
    power = (
        f"coalesce(nullif(split_part({text}, 'e', 2), ''), '0')::int + length(split_part({mantissa}, '.', 1)) "
        f"- length({digits}) + length(ltrim({digits}, '0'))"
    )
    sign = f"case left({own}::float8::text, 1) when '-' then '-' else '' end"
    finite = (
        f"({sign} || case when {own} = 0 then '0' else '0.' || trim(both '0' from {digits}) || 'e' || ({power}) end)"
    )
    return f"case when {text} in ('NaN', 'Infinity') then {own}::float8::text else {finite} end"


def mysql_float(part: Field, own: str) -> str:
    """The same in MySQL's SQL.

    What is calculated is printed with at most 22 characters, and the smallest doubles need 23: so a double is printed
    as it is. One with a display width, and a float, is made a double first, without its sign: 22 are enough for these.
    """
    whole = part.column.base == "double" and "(" not in part.column.type
    text = f"trim(leading '-' from cast({own} as char))" if whole else f"cast(abs({own} * 1e0) as char)"
    mantissa = f"substring_index({text}, 'e', 1)"
    digits = f"replace({mantissa}, '.', '')"
    power = (
        f"if(locate('e', {text}), cast(substring_index({text}, 'e', -1) as signed), 0) "
        f"+ length(substring_index({mantissa}, '.', 1)) - length({digits}) + length(trim(leading '0' from {digits}))"
    )
    sign = f"if(left(cast({own} * 1e0 as char), 1) = '-', '-', '')"
    finite = f"concat('0.', trim(both '0' from {digits}), 'e', {power})"
    return f"concat({sign}, if({own} = 0, '0', {finite}))"
