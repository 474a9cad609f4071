"""`python -m runbook_lib.lab <verb>`: start the lab, look at it, break it, mend it, stop it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from ..errors import LabError, RunbookError
from .connection import Connection, default_state, read_connection
from .core import POSTGRESQL, PROFILE, Folder
from .databases import MARIADB
from .protocol import Refusal


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runbook lab", description="AWS on a loopback port.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        made.add_argument("--state", type=Path, metavar="FOLDER", help="where it keeps its state (default: .lab)")
        return made

    verb("serve", "be the lab, in the foreground")
    starting = verb("start", "start the lab, or find the one that runs")
    starting.add_argument("--json", action="store_true")
    starting.add_argument("--pace", type=_pace_of, help="set the pace too")
    starting.add_argument("--profile", help="set the profile too")
    verb("status", "say where it is, how it is set and what is in it").add_argument(
        "--json", action="store_true", help="as one line of JSON"
    )
    verb("stop", "end the lab; its state stays")
    verb("reset", "build the world anew").add_argument(
        "--at", default="00", metavar="NN", help="as notebook NN finds it (default: 00)"
    )
    planting = verb("break", "plant a fault; without a name: say which there are")
    planting.add_argument("fault", nargs="?")
    planting.add_argument("--path", help="the file it is about, relative to the export")
    verb("mend", "mend a fault, or all").add_argument("fault", nargs="?")
    verb("logs", "what the lab's process wrote").add_argument("-f", "--follow", action="store_true")
    verb("env", "print the exports that point the aws command line at the lab")
    showing = verb("databases", "start the databases, and say how to connect to them")
    showing.add_argument("--json", action="store_true", help="as one line of JSON")
    showing.add_argument("--show-passwords", action="store_true")
    working = verb("workload", "let the shop work on the source database, or let it rest")
    working.add_argument("action", choices=("start", "stop", "status"))
    working.add_argument("--rate", type=float, metavar="N", help="transactions a second (default: 20)")
    choosing = verb("profile", "migrate from MariaDB as well, or from PostgreSQL only; without a name: say which it is")
    choosing.add_argument("profile", nargs="?", choices=("mariadb", "postgresql"))
    verb("pace", "0: as fast as it works; 1: as slow as people know it").add_argument("pace", type=_pace_of)
    return parser


def _pace_of(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        said = f"{text!r} is no pace: give a number from 0 (as fast as it works) to 10; 1 is as slow as people know it"
        raise argparse.ArgumentTypeError(said) from error


def main(arguments: list[str] | None = None) -> int:
    """0 done, 1 it went wrong (one line says why), 2 wrong usage."""
    options = _parser().parse_args(arguments)
    folder = Folder((options.state or default_state()).expanduser().resolve())
    try:
        _VERBS[options.verb](folder, options)
        return 0
    except (RunbookError, Refusal) as error:
        print(f"runbook lab {options.verb}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print(f"runbook lab {options.verb}: {type(error).__name__}: {error}", file=sys.stderr)
    if options.verb == "serve":
        sys.stderr.flush()
        os._exit(1)  # a service's thread must not keep a lab alive that could not start
    return 1


def _serve(folder: Folder, _: argparse.Namespace) -> None:
    from .daemon import serve

    serve(folder)


def _start(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import perform, start
    from .database import Database

    connection = start(folder)
    settings = Database(folder.database)
    pace = settings.setting("pace", 0.0)
    if options.pace is not None and options.pace != pace:
        pace = perform(folder, "pace", {"pace": options.pace})["pace"]
    if options.profile not in (None, settings.setting(PROFILE, POSTGRESQL)):
        perform(folder, "profile", {"profile": options.profile})
    if options.json:
        print(json.dumps({**connection.public(), "pace": pace}))
    else:
        print(f"The lab answers at {connection.url} (pid {connection.pid}, state in {folder.root}).")
        print('Point the aws command line at it with:  eval "$(runbook lab env)"')


def _stop(folder: Folder, _: argparse.Namespace) -> None:
    from .daemon import stop

    print("The lab has stopped; its state stays." if stop(folder) else "No lab was running.")


def _status(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import running

    answers = running(folder)
    found: dict[str, Any] = {"running": answers, "state": str(folder.root)}
    if answers:
        found.update(_connection(folder).call("status"))
    if options.json:
        print(json.dumps(found))
    elif not answers:
        print(f"No lab is running for {folder.root}. Start it with `runbook lab start`.")
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    world = found["world"] or {}
    faults = found["faults"]
    up = [side for side, runs in found["databases"].items() if runs]
    print(f"The lab answers at {found['url']} (pid {found['pid']}).")
    print(f"  state      {found['state']}")
    print(f"  world      as notebook {world.get('at', '?')} finds it, when it was built")
    print(f"  pace       {found['pace']:g}")
    print(f"  profile    {found['profile']}")
    print(f"  faults     {', '.join(faults) + '; mend them with `runbook lab mend`' if faults else 'none'}")
    print(f"  databases  {' and '.join(up) + ' run' if up else 'not started; they start when they are needed'}")
    print(f"  workload   {_working(found['workload'])}")
    for kind, count in found["counts"].items():
        print(f"  {count:9,}  {kind}")


def _reset(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import perform

    at = options.at.zfill(2)  # 4 is 04
    profile = perform(folder, "reset", {"at": at})["profile"]
    print(f"The world is as notebook {at} finds it{', with MariaDB' if profile == MARIADB else ''}.")


def _break(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import perform
    from .faults import FAULTS

    if options.fault is None:
        for fault in FAULTS.values():
            print(f"{fault.name}\n  happens  {fault.happens}\n  fails    {fault.fails}")
        print("Plant one with `runbook lab break NAME`.")
        return
    done = perform(folder, "break", {"fault": options.fault} | ({"path": options.path} if options.path else {}))
    fault = FAULTS[options.fault]
    print(f"Planted: {fault.name}.")
    for label, text in (("happens", fault.happens), ("see it", fault.run), ("fails", fault.fails)):
        print(f"  {label:7}  {text}")
    print(f"  repair   {fault.repair}")
    if done["unmet"]:
        print(f"  not yet  the DMS task {', '.join(done['unmet'])} has not met it yet: look again in a few seconds")


def _mend(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import perform

    left = perform(folder, "mend", {"fault": options.fault} if options.fault else {})["faults"]
    print(f"Mended. Still planted: {', '.join(left)}." if left else "Mended. Nothing is broken.")


def _pace(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import perform

    perform(folder, "pace", {"pace": options.pace})
    print(f"The pace is {options.pace:g}.")


def _profile(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import perform

    asked = {"profile": options.profile} if options.profile else {}
    profile = perform(folder, "profile", asked)["profile"]
    meaning = {
        MARIADB: "MariaDB is a source as well; its task is mariadb-to-cloud: runbook run 06 -e lab-mariadb",
        POSTGRESQL: "the only source is PostgreSQL",
    }
    print(f"The profile is {profile}: {meaning[profile]}.")


def _databases(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import perform, start
    from .databases import DATABASE, READER

    start(folder)
    found = perform(folder, "databases", {})
    if not options.show_passwords:
        for side in found["sides"].values():
            side["users"] = list(side["users"])
    if options.json:
        print(json.dumps(found))
        return
    for name, side in found["sides"].items():
        print(f"{name}: {side['host']}:{side['port']}, database {side['database']}, users {', '.join(side['users'])}")
        place = ["-h", side["host"], "-P" if name == MARIADB else "-p", str(side["port"])]
        if name == MARIADB:
            print(f"  {shlex.join(['mariadb', *place, '-u', READER, '-p', DATABASE])}")
        else:
            psql = shlex.join([found["psql"], *place, "-U", READER, DATABASE])
            print(f"  PGPASSFILE={shlex.quote(found['pgpass'])} {psql}")
        if options.show_passwords:
            for user, password in side["users"].items():
                print(f"  {user:8} {password}")


def _workload(folder: Folder, options: argparse.Namespace) -> None:
    from .daemon import perform, start

    if options.action == "start":
        start(folder)
    rate = {} if options.rate is None else {"rate": options.rate}
    print(f"The workload is {_working(perform(folder, 'workload', {'action': options.action, **rate}))}.")


def _working(status: dict[str, Any]) -> str:
    if not status["on"]:
        return "off"
    failed = f", {status['failed']:,} interruptions, the last: {status['error']}" if status["failed"] else ""
    rests = "" if status["working"] else ", at rest until the lab starts"
    return f"on, {status['rate']:g} transactions a second{rests}, {status['committed']:,} committed{failed}"


def _logs(folder: Folder, options: argparse.Namespace) -> None:
    if not folder.log.exists():
        raise LabError(f"There is no log at {folder.log}: the lab was never started there.")
    with open(folder.log, errors="replace") as file:
        while True:
            while piece := file.read(1 << 16):
                sys.stdout.write(piece)
            sys.stdout.flush()
            if not options.follow:
                return
            time.sleep(0.2)


def _env(folder: Folder, _: argparse.Namespace) -> None:
    connection = _connection(folder)
    values = {
        "AWS_ENDPOINT_URL": connection.url,
        "AWS_ACCESS_KEY_ID": connection.access_key,
        "AWS_SECRET_ACCESS_KEY": connection.secret_key,
        "AWS_REGION": connection.regions["cloud"],
        "AWS_DEFAULT_REGION": connection.regions["cloud"],  # what the command line of version 1 reads
    }
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
    print("unset AWS_PROFILE AWS_SESSION_TOKEN")


def _connection(folder: Folder) -> Connection:
    connection = read_connection(folder)
    if connection is None or not connection.url:
        raise LabError(f"No lab was ever started in {folder.root}. Start it with `runbook lab start`.")
    return connection


_VERBS = {
    "serve": _serve,
    "start": _start,
    "stop": _stop,
    "status": _status,
    "reset": _reset,
    "break": _break,
    "mend": _mend,
    "logs": _logs,
    "env": _env,
    "databases": _databases,
    "workload": _workload,
    "pace": _pace,
    "profile": _profile,
}

if __name__ == "__main__":
    sys.exit(main())
