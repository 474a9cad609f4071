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
SMALL = frozenset({"int2", "int4"})
# Kinds whose values have a fixed number of bytes in PostgreSQL's protocol, the same in every version.
SENT: dict[Kind, str] = {
    "date": "date_send", "time": "time_send", "timestamp": "timestamp_send", "timestamptz": "timestamptz_send",
    "uuid": "uuid_send",
}  # fmt: skip
GROUP = 32  # fields written at once: a function takes 100 arguments at most
ARGUMENTS = 99
SEP = f"chr({SEPARATOR})"


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
    lengths = [f"octet_length({_own(part) if part in raw else utf8(_term(part, common), common)})" for part in measured]
    terms += [f"coalesce({lengths[0]}, -1)", *lengths[1:]] if lengths else ["'.'"]
    terms += [_term(part, common) for part in [*fixed, *texts]]
    joined = f"concat_ws({SEP}, {', '.join(terms)})"
    values = [f"coalesce({_send(part)}, '')" for part in sent] + [f"coalesce({_own(part)}, '')" for part in raw]
    whole = f"textsend({joined})" if common.utf8 else utf8(joined, common)
    return f"{whole} || ({' || '.join(values)})" if values else whole


def _own(part: Field) -> str:
    return f"t.{quoted(part.column.name)}"


def _send(part: Field) -> str:
    """The bytes of a value whose kind has a fixed number of them; '' for others."""
    if part.kind == "float":
        return f"float8send({_own(part)})" if part.alike and part.column.base == "float8" else ""
    return f"{SENT[part.kind]}({_moment(part)})" if part.kind in SENT else ""


def _moment(part: Field) -> str:
    """The column; a timestamp that is compared with moments as the moment it is in UTC."""
    zoned = part.kind == "timestamptz" and part.column.base == "timestamp"
    return f"{_own(part)}::timestamptz" if zoned else _own(part)


def _term(part: Field, common: Common) -> str:
    """A value for concat_ws: as it is where its text is what a cast makes of it, or as good."""
    base = part.column.base
    as_it_is = (
        (part.kind in PLAIN and base != "bool")
        or (part.kind == "text" and base in ("text", "varchar"))
        or (part.kind == "json" and base == "jsonb")
        or part.kind == "boolean"
    )  # fmt: skip
    return _own(part) if as_it_is else cast(part, common)


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
        case "json" if part.column.base != "jsonb":
            return _as_jsonb(own, common)
        case "number" if part.column.base != "numeric":
            return f"{own}::text"
        case "number":
            return trimmed(own, common.trims)
        case "numeric" if common.portable:
            return trimmed(own, common.trims)
        case "float" if common.portable:
            return portable.postgresql_float(own)
    return f"{own}::text"


def trimmed(own: str, trims: bool) -> str:
    """A numeric without zeros at the end of its fraction; `trims`: the server has a function for it."""
    if trims:
        return f"trim_scale({own})::text"
    return f"case when strpos({own}::text, '.') > 0 then rtrim(rtrim({own}::text, '0'), '.') else {own}::text end"


def _as_jsonb(own: str, common: Common) -> str:
    """JSON as jsonb prints it; what jsonb cannot hold (\\u0000, half a surrogate) as it is: that is never the same."""
    text = f"{own}::jsonb::text"
    return (
        f"case when pg_input_is_valid({own}::text, 'jsonb') then {text} else {own}::text end" if common.asks else text
    )


def native(fields: Sequence[Field], common: Common) -> str:
    """PostgreSQL's own hash of fields: of each alone, with its number as the seed, then the one of them all.

    Values side by side need no row to be made of them, which costs as much as their hashes. They meet under xor: were
    each hash the next one's seed, NULL would cut the chain. The last hash sees to it that sums of rows tell which
    values stood in one row. Whatever the catalog says, NULL has a hash: a row without one would be left out of the sum.
    """
    terms, packed = [], []
    for number, part in enumerate(fields, 1):
        term = _hash(part, number, common)
        if term:
            terms.append(f"coalesce({term}, {number})")
        else:
            packed.append(_bytes(part))
    terms += [f"hash_record_extended(row({', '.join(packed)}), 0)"] if packed else []
    return f"hashtextextended('', {' # '.join(terms)})"


def _hash(part: Field, seed: int, common: Common) -> str:
    """A field's 64-bit hash, which sees every difference; '' where there is none for what it is written as."""
    own = _own(part)
    base = part.column.base
    match part.kind:
        case "boolean":
            return f"hashint4extended({own}::int, {seed})"
        case "integer" if part.alike and base in SMALL:
            return f"hashint4extended({own}, {seed})"
        case "integer":  # its hash folds 64 bits to 32: 1 and 4294967296 are one
            whole = f"{own}::int::int8" if base == "bool" else f"{own}::int8"
            return f"hashint8extended({whole}, hashint8extended({whole} >> 32, {seed}))"
        case "float" if part.alike:  # its hash takes -0 for 0
            exact = f"hashtextextended({own}::text, {seed})"
            return f"case when {own} = 0 then {exact} else hashfloat8extended({own}::float8, {seed}) end"
        case "uuid":
            return f"uuid_hash_extended({own}::uuid, {seed})"
        case "number" | "numeric" | "bytes" | "date" | "time" | "timestamp" | "timestamptz":
            return f"hashbyteaextended({_bytes(part)}, {seed})" if common.bytes_hashed else ""
    return f'hashtextextended({cast(part, common)} collate "C", {seed})'  # other collations may take texts for equal


def _bytes(part: Field) -> str:
    """A value as bytes: 1.5 and 1.500 are equal and have one hash, and of moments it folds 64 bits to 32."""
    if part.kind == "number":
        return f"numeric_send(trim_scale({_own(part)}::numeric))"
    if part.kind == "numeric":
        return f"numeric_send({_own(part)}::numeric)"
    return f"{_own(part)}::bytea" if part.kind == "bytes" else _send(part)
