"""How does PostgreSQL write a row, so that equal bytes mean equal values? Texts, bytes and hashes of one row.

Between two PostgreSQL servers a row is not written as `dialect` has it but in bytes that are quicker to make: a text,
then the values that have few bytes of their own, then those of bytea. The text's terms are joined by the character 31:
`!` with its number for each field that is NULL; the lengths in bytes of the free fields (-1 for NULL for the first
one, a dot where there is none), but not that of the last of many texts; the fields that are never empty and hold no
control character; the free ones. What is NULL is left out. So from its two ends it can be read in one way only.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import portable
from .dialect import SEPARATOR, Common
from .model import FREE, Field, Kind, View

# Kinds that concat writes exactly as a cast to text does.
PLAIN: frozenset[Kind] = frozenset({"integer", "numeric", "float", "date", "time", "timestamp", "timestamptz", "uuid"})
# Kinds with a type whose own hash tells all its values apart. Those of bigint, time and the timestamps fold 64 bits to
# 32 (1 and 4294967296 are one), that of numeric leaves out the sign: of these the bytes are hashed.
HASHED: dict[Kind, str] = {"boolean": "bool", "bytes": "bytea", "date": "date", "uuid": "uuid"}
SMALL = frozenset({"int2", "int4"})
# Kinds whose values have a fixed number of bytes in PostgreSQL's protocol, the same in every version.
SENT: dict[Kind, str] = {
    "date": "date_send", "time": "time_send", "timestamp": "timestamp_send", "timestamptz": "timestamptz_send",
    "uuid": "uuid_send",
}  # fmt: skip
GROUP = 32  # fields written at once: a function takes 100 arguments at most
ARGUMENTS = 99
SEP = f"chr({SEPARATOR})"
SAME = Common(portable=False, modern=True)


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def md5(view: View, common: Common) -> str:
    """The md5 of a row."""
    if common.portable:
        return f"md5({utf8(text(view.fields, common), common)})"
    groups = [view.fields[start : start + GROUP] for start in range(0, len(view.fields), GROUP)]
    hashes = [f"md5({_written(group, common)})" for group in groups]
    return hashes[0] if len(hashes) == 1 else f"md5(concat({', '.join(hashes)}))"


def utf8(text: str, common: Common) -> str:
    """A text's bytes in UTF-8: it has them already where all servers keep it so."""
    return text if common.utf8 else f"convert_to({text}, 'UTF8')"


def _written(fields: Sequence[Field], common: Common) -> str:
    """A row as bytes, as PostgreSQL servers write it for each other."""
    sent = [part for part in fields if _send(part)]
    raw = [part for part in fields if part.kind == "bytes"]
    fixed = [part for part in fields if part.kind not in FREE and part not in sent]
    texts = [part for part in fields if part.kind in FREE and part not in raw]
    measured = [*raw, *(texts[:-1] or texts)] if texts else raw
    terms = [f"case when {_own(part)} is null then '!{n}' end" for n, part in enumerate(fields) if part.column.nullable]
    lengths = [f"octet_length({_own(part) if part in raw else utf8(_term(part), common)})" for part in measured]
    terms += [f"coalesce({lengths[0]}, -1)", *lengths[1:]] if lengths else ["'.'"]
    terms += [_term(part) for part in [*fixed, *texts]]
    joined = f"concat_ws({SEP}, {', '.join(terms)})"
    values = [_present(_send(part), part) for part in sent] + [_present(_own(part), part) for part in raw]
    whole = f"textsend({joined})" if common.utf8 else utf8(joined, common)
    return f"{whole} || ({' || '.join(values)})" if values else whole


def _own(part: Field) -> str:
    return f"t.{quoted(part.column.name)}"


def _present(value: str, part: Field) -> str:
    """Bytes, none for NULL: the text says that it is NULL."""
    return f"coalesce({value}, '')" if part.column.nullable else value


def _send(part: Field) -> str:
    """The bytes of a value whose kind has a fixed number of them; '' for others."""
    if part.kind == "float":
        return f"float8send({_own(part)})" if part.alike and part.column.base == "float8" else ""
    return f"{SENT[part.kind]}({_moment(part)})" if part.kind in SENT else ""


def _moment(part: Field) -> str:
    """The column; a timestamp that is compared with moments as the moment it is in UTC."""
    zoned = part.kind == "timestamptz" and part.column.base == "timestamp"
    return f"{_own(part)}::timestamptz" if zoned else _own(part)


def _term(part: Field) -> str:
    """A value for concat_ws: as it is where its text is what a cast makes of it, or as good."""
    base = part.column.base
    as_it_is = (
        (part.kind in PLAIN and base != "bool")
        or (part.kind == "text" and base in ("text", "varchar"))
        or (part.kind == "json" and base == "jsonb")
        or part.kind == "boolean"
    )  # fmt: skip
    return _own(part) if as_it_is else cast(part, SAME)


def text(fields: Sequence[Field], common: Common) -> str:
    """The canonical text of a row, as `dialect` describes it."""
    fixed = [part for part in fields if part.kind not in FREE]
    free = [part for part in fields if part.kind in FREE]
    terms = [_fixed(part, common) for part in fixed]
    terms += [
        f"coalesce(octet_length({utf8(cast(part, common), common)}), -1)" if part.column.nullable else
        f"octet_length({utf8(cast(part, common), common)})" for part in free
    ]  # fmt: skip
    terms += [cast(part, common) for part in free]
    parts = [f"concat_ws({SEP}, {', '.join(terms[:ARGUMENTS])})"]
    for start in range(ARGUMENTS, len(terms), ARGUMENTS):
        more = ", ".join(f"{SEP} || {term}" for term in terms[start : start + ARGUMENTS])
        parts.append(f"concat({more})")
    return " || ".join(parts)


def _fixed(part: Field, common: Common) -> str:
    written = cast(part, common)
    if part.column.nullable:
        return f"coalesce({written}, '')"
    return _own(part) if written == f"{_own(part)}::text" and part.kind in PLAIN else written


def cast(part: Field, common: Common) -> str:
    """The canonical text of one value."""
    own = _moment(part)
    match part.kind:
        case "boolean" | "integer" if part.column.base == "bool":
            return f"{own}::int::text"
        case "bytes":
            return f"encode({own}, 'hex')"
        case "json":
            return f"{own}::text" if part.column.base == "jsonb" else f"{own}::jsonb::text"
        case "numeric" if common.portable:
            return f"trim_scale({own}::numeric)::text"
        case "float" if common.portable:
            return portable.postgresql_float(own)
    return f"{own}::text"


def native(fields: Sequence[Field]) -> str:
    """PostgreSQL's own hash of fields."""
    return f"hash_record_extended(row({', '.join(map(_hashed, fields))}), 0)"


def _hashed(part: Field) -> str:
    """What the hash is given: the value where its hash sees every difference, else bytes or text that do."""
    own = _own(part)
    base = part.column.base
    if part.kind == "text":
        return f'{own}::text collate "C"'  # a collation may take different texts for equal
    if part.kind in HASHED:
        return own if base == HASHED[part.kind] else f"{own}{'::int' * (base == 'bool')}::{HASHED[part.kind]}"
    if part.kind == "integer":
        return own if part.alike and base in SMALL else f"int8send({own}{'::int' * (base == 'bool')}::int8)"
    if part.kind == "float":
        return f"float8send({own}::float8)"  # -0 and NaN as they are
    if part.kind == "numeric":  # 1.5 and 1.500 are equal, their bytes are not
        return f"numeric_send({own}::numeric)"
    if part.kind in SENT:
        return f"{SENT[part.kind]}({_moment(part)})"
    return f'{cast(part, SAME)} collate "C"'
