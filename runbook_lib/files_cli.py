"""`runbook compare-files`: is every file of the NFS server on the other side? For use outside the notebooks."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.markup import escape

from .asked import Wish
from .environment import Level
from .errors import SettingsError

LEVELS = get_args(Level)
AGAINST = ("bucket", "share", "report")
SOURCES = ("scan", "report")
MANY = 1_000_000  # files, from which another engine is worth a thought
SELDOM = 30.0  # seconds between two lines of a log

# environment, settings of its section `inventory` that win, gentle, the account confirmed -> rb.files
Opened = Callable[[str, dict[str, Any], bool, str | None], Any]


def register(app: typer.Typer, opened: Opened) -> None:
    """Add the command. `opened` gives an environment's files."""

    @app.command("compare-files")
    def compare_files(
        environment: Annotated[str, typer.Argument(help="A name below parameters/, or a YAML file.")],
        level: Annotated[
            str, typer.Option(help="names, size, metadata, sample or content: each looks further.")
        ] = "size",
        against: Annotated[
            list[str] | None,
            typer.Option(
                help="bucket, share (as the gateway shows it), or report. Given more than once, the source is "
                "scanned once for all; what is in its files is read for each.",
                show_default="bucket",
            ),
        ] = None,
        source: Annotated[str, typer.Option(help="scan, or report: what DataSync's latest execution saw.")] = "scan",
        within: Annotated[
            str | None, typer.Option(help="Only the files directly in this folder; / is the top.")
        ] = None,
        sample: Annotated[int, typer.Option(min=1, help="Files that level sample reads.")] = 3000,
        seed: Annotated[
            int | None, typer.Option(min=0, help="By which they are drawn; none: any, and it is said which.")
        ] = None,
        s3_inventory: Annotated[
            str | None, typer.Option(help="s3://bucket/…/manifest.json, or latest: stands in for LIST.")
        ] = None,
        confirm: Annotated[
            str | None, typer.Option(help="The account once more, where `inventory.exchange` is used.")
        ] = None,
        gentle: Annotated[
            bool,
            typer.Option(
                help="One process, at rates that a busy server bears, or the environment's where they are lower."
            ),
        ] = False,
        out: Annotated[
            Path | None, typer.Option(help="Where inventories and differences go; an unfinished one is gone on with.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="The result for machines.")] = False,
    ) -> None:
        """Compare the NFS server's files with the bucket or the share; changes nothing.

        Exit codes: 0 the same, 1 not the same, 2 usage, 3 an error, 130 interrupted.
        """
        others = against or [AGAINST[0]]
        for option, given, known in (
            ("--level", level, LEVELS),
            *(("--against", other, AGAINST) for other in others),
            ("--source", source, SOURCES),
        ):
            if given not in known:
                raise SettingsError(f"{option} {given!r}: {', '.join(known[:-1])} or {known[-1]}.")
        if level == "sample" and seed is None and len(others) > 1:
            seed = secrets.randbits(32)  # one sample for all sides
        wishes = [Wish(level, other, within, sample, seed, source) for other in dict.fromkeys(others)]  # type: ignore[arg-type]
        for wish in wishes:
            wish.refuse()
        wins: dict[str, Any] = {}
        if s3_inventory is not None:
            wins["s3_inventory"] = s3_inventory
        files = opened(environment, wins, gentle, confirm)
        aside, found = Console(stderr=True), dict[str, Any]()
        several = len(wishes) > 1
        try:
            for wish in wishes:
                first = next(iter(found.values()), None)
                with _shown(aside) as told:
                    one = files.compare(
                        level, against=wish.against, within=within, take=sample, seed=seed, source=source,
                        out=out / wish.against if out is not None and several else out, of=first,
                        told=told, said=lambda sentence: aside.print(sentence, soft_wrap=True),
                    )  # fmt: skip
                found[wish.against] = one
                if not as_json:
                    print(f"With the {wish.against}:\n{one!r}\n" if several else repr(one))
                beside = "" if first is None else f" (of the source: {first.folder})"
                aside.print(f"Inventories and differences: {one.folder}{beside}", soft_wrap=True)
                if one.comparison.files >= MANY:
                    aside.print(one.elsewhere, soft_wrap=True)
        except KeyboardInterrupt:
            aside.print(_interrupted(out is not None, bool(found)), soft_wrap=True)
            raise typer.Exit(130) from None
        finally:  # also what ended before an error
            if as_json and found:
                bodies = [one.body() for one in found.values()]
                print(json.dumps(bodies if several else bodies[0], indent=2, ensure_ascii=False))
            elif several:
                print(_summary([wish.against for wish in wishes], found))
        raise typer.Exit(0 if all(one.ok for one in found.values()) else 1)


def _summary(sides: list[str], found: dict[str, Any]) -> str:
    """'bucket: the same; share: NOT the same; report: not finished'."""
    words = {None: "not finished", True: "the same", False: "NOT the same"}
    return "; ".join(f"{side}: {words[found[side].ok if side in found else None]}" for side in sides) + "."


def _interrupted(out: bool, some: bool) -> str:
    """What is kept, and how to go on."""
    if not some:
        return "Interrupted. What is finished is kept: the same command goes on with it, for a day."
    other = " and another --out" if out else ""
    return (
        "Interrupted. For a side that is not finished give --against with that side alone"
        f"{other}; the NFS server is scanned again."
    )


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[Any], None]]:
    """A line on the terminal that says how far it is; in a log, a line now and then."""
    if not console.is_terminal:
        yield _now_and_then(lambda sentence: console.print(escape(sentence), soft_wrap=True), time.monotonic)
        return
    with console.status("starting …") as status:
        yield lambda said: status.update(escape(said.sentence(time.monotonic())))


def _now_and_then(write: Callable[[str], None], clock: Callable[[], float]) -> Callable[[Any], None]:
    """Writes what it is told, not more often than `SELDOM`."""
    written = clock()

    def told(said: Any) -> None:
        nonlocal written
        if clock() - written >= SELDOM:
            written = clock()
            write(said.sentence(written))

    return told
