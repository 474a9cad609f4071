"""In which shapes does a secret come along? Its usual encodings, and one expression that finds any of many."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterable

Trie = dict[str, "Trie"]
BREAK = r"(?:\r?\n|\\+n)?"  # `base64` and mail break lines
LINES = re.compile(r"[A-Za-z0-9+/]{48}(?:\r?\n|\\+n)[A-Za-z0-9+/]")  # such lines; shorter ones nobody makes
END = ""  # a key of a trie: a word ends here


def encodings(value: str) -> set[str]:
    """A value as it may stand in a text: plain, base64, hexadecimal, URL-quoted, JSON- and HTML-escaped, as repr."""
    raw = value.encode("utf-8", "surrogateescape")
    found = {value, value.strip(), raw.hex(), raw.hex().upper()}
    for shown in (repr(value)[1:-1], repr(raw)[2:-1]):  # which quote is escaped depends on what stands beside it
        bare = shown.replace("\\'", "'")
        found |= {shown, bare, bare.replace("'", "\\'")}
    wide = value.encode("utf-16-le", "surrogatepass")  # Windows, PowerShell
    found |= {wide.hex(), wide.hex().upper()}
    found |= (cores := base64s(value)) | {core.translate(str.maketrans("+/", "-_")) for core in cores}
    every = "".join(f"%{byte:02X}" for byte in raw)
    found |= {every, every.lower()}
    for quoted in (urllib.parse.quote(raw, safe=""), urllib.parse.quote(raw), urllib.parse.quote_plus(raw)):
        found |= {quoted, re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), quoted)}
        found |= {
            twice := urllib.parse.quote(quoted, safe=""),
            re.sub(r"%25[0-9A-F]{2}", lambda c: c[0].lower(), twice),
        }
    for escaped in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        found |= {escaped, escaped.replace("/", r"\/"), json.dumps(escaped)[1:-1]}
        for letters in ("<>&", "<>&'"):  # JSON that stands in HTML
            found |= {_each(escaped, letters, r"\u{:04x}"), _each(escaped, letters, r"\u{:04X}")}
    for form in (r"\u{:04x}", r"\u{:04X}", r"\x{:02x}"):
        numbers = _each(value, value, form)
        found |= {numbers, numbers.replace("\\", r"\\")}  # as it is, and as repr
    quotes = html.escape(value)
    found |= {quotes, html.escape(value, quote=False), quotes.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")}
    for letters in ("<>&\"'", value):
        found |= {_each(value, letters, entity) for entity in ("&#{:d};", "&#x{:x};", "&#x{:X};")}
    return found


def base64s(value: str) -> set[str]:
    """A value in base64, by how many bytes stand before it; also as Windows has texts."""
    raws = (value.encode("utf-8", "surrogateescape"), value.encode("utf-16-le", "surrogatepass"))
    return {_core(raw, offset) for raw in raws for offset in range(3)}


def _each(value: str, letters: str, form: str) -> str:
    """A value with some of its letters written by their number."""
    return "".join(form.format(ord(letter)) if letter in letters else letter for letter in value)


def _core(raw: bytes, offset: int) -> str:
    """The base64 characters that depend on these bytes alone when `offset` others stand before them."""
    encoded = base64.b64encode(bytes(offset) + raw).decode()
    return encoded[(offset * 8 + 5) // 6 : (offset + len(raw)) * 8 // 6]


def any_of(words: Iterable[str], whole: Iterable[str] = (), glue: str = "") -> re.Pattern[str]:
    """An expression that finds the longest of many words, and others only where they are words of their own.

    `glue` is what may stand between two letters.
    """
    forms = []
    for some, form in ((words, "{}"), (whole, r"(?<!\w){}(?!\w)")):
        trie = _trie(some)
        if trie:
            forms.append(form.format(f"(?:{_expression(trie, glue)})"))
    return re.compile("|".join(forms) or r"(?!)")


def _trie(words: Iterable[str]) -> Trie:
    """Words that share their beginnings, so that many cost as few."""
    root: Trie = {}
    for word in words:
        node = root
        for letter in word:
            node = node.setdefault(letter, {})
        node[END] = {}
    return root


def _expression(node: Trie, glue: str, before: str = "") -> str:
    """`glue` may stand between two letters, `before` before the first."""
    straight = ""
    while len(node) == 1 and END not in node:
        ((letter, node),) = node.items()
        straight, before = straight + before + re.escape(letter), glue
    branches = [
        before + re.escape(letter) + _expression(below, glue, glue)
        for letter, below in sorted(node.items())
        if letter != END
    ]
    if not branches:
        return straight
    return f"{straight}(?:{'|'.join(branches)}){'?' if END in node else ''}"
