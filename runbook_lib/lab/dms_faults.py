"""What can be broken on purpose in a DMS migration? Rows, sequences, rights and replication itself, for real."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from ..errors import LabError
from .core import Lab
from .dms_mappings import read_mappings
from .dms_resources import TASK, Document
from .dms_roles import VPC_ROLE
from .dms_tables import FAILED, Tables, load_again
from .fault import Fault, Planted
from .postgres import SECRETIVE

if TYPE_CHECKING:
    import psycopg

CHANGED, LOST = 42, 77  # customers whose row on the target is changed, and lost; nobody else changes their names
CLASHING = -17  # the customer whom both sides have made; no sequence comes there
RETURNS = "shop.returns"
SWAP, LAG = "swap-pause", "replication-lag"  # a running task looks whether they are planted
DEALT_WITH = "The log keeps what it said: run 06 with -p logs_since=<now in UTC, as in 2026-11-28T12:00:00Z>."
_FOUND_RETURNS = f"""
create table if not exists {RETURNS} (
    id int primary key, order_id bigint not null, reason text, received_at timestamptz not null);
insert into {RETURNS} select n, n * 7, case n %% 3 when 0 then null else 'too small' end,
    timestamptz '2025-06-01 08:00+00' + n * interval '3 hours' from generate_series(1, 40) n on conflict do nothing;
revoke all on {RETURNS} from dms;
""".replace("%%", "%")


def _loaded(target: psycopg.Connection[Any], table: str) -> None:
    """LabError when the target does not have a table with rows: there is nothing to break yet."""
    there = target.execute("select to_regclass(%s) is not null", [table]).fetchone()
    if not (there and there[0]) or target.execute(f"select 1 from {table} limit 1").fetchone() is None:
        raise LabError(f"The target has no rows in {table} yet: start the DMS task first (runbook run 06).")


def _change_row(lab: Lab, _: str) -> Planted:
    with lab.databases.connect("target") as target:
        _loaded(target, "shop.customers")
        row = target.execute(
            "update shop.customers set name = name || ' jr.' where id = %s returning name", [CHANGED]
        ).fetchone()
        if row is None:
            raise LabError(f"The target has lost customer {CHANGED}: load the table shop.customers again.")
        return {"id": CHANGED, "name": row[0]}


def _change_row_back(lab: Lab, planted: Planted) -> None:
    """The source's name again, unless somebody has mended the row since."""
    with lab.databases.connect("source") as source, lab.databases.connect("target") as target:
        found = source.execute("select name from shop.customers where id = %s", [planted["id"]]).fetchone()
        if found is not None and _has(target, "shop.customers"):
            target.execute(
                "update shop.customers set name = %s where id = %s and name = %s",
                [found[0], planted["id"], planted["name"]],
            )


def _lose_row(lab: Lab, _: str) -> Planted:
    with lab.databases.connect("target") as target:
        _loaded(target, "shop.customers")
        with target.transaction():  # nobody's foreign key keeps it, also after those were made
            target.execute("set local session_replication_role = replica")
            target.execute("delete from shop.customers where id = %s", [LOST])
        return {"id": LOST}


def _bring_row_back(lab: Lab, planted: Planted) -> None:
    """The row as the source has it, unless it is there again."""
    with lab.databases.connect("source") as source, lab.databases.connect("target") as target:
        found = source.execute(
            "select to_jsonb(c)::text from shop.customers c where id = %s", [planted["id"]]
        ).fetchone()
        if found is not None and _has(target, "shop.customers"):
            target.execute(
                "insert into shop.customers overriding system value"
                " select * from jsonb_populate_record(null::shop.customers, %s) on conflict do nothing",
                [found[0]],
            )


def _set_sequence_back(lab: Lab, _: str) -> Planted:
    with lab.databases.connect("target") as target:
        _loaded(target, "shop.orders")
        target.execute("select setval(pg_get_serial_sequence('shop.orders', 'id'), 1, false)")
        return {}


def _set_sequence_on(lab: Lab, _: Planted) -> None:
    """Beyond what both sides have, unless it is there."""
    with lab.databases.connect("source") as source, lab.databases.connect("target") as target:
        if not _has(target, "shop.orders"):
            return
        (last,) = source.execute("select last_value from shop.orders_id_seq").fetchone() or (0,)
        target.execute(
            "select setval(s, greatest(%s, (select max(id) from shop.orders)))"
            " from (select pg_get_serial_sequence('shop.orders', 'id')::regclass) as q(s)"
            " where coalesce(pg_sequence_last_value(s), 0) < greatest(%s, (select max(id) from shop.orders))",
            [last, last],
        )


def _make_table_without_grants(lab: Lab, _: str) -> Planted:
    """A table that DMS's user may not read. When a task has it already, it is loaded again: and that fails."""
    with lab.databases.connect("source") as source:
        source.execute(_FOUND_RETURNS.encode())
    for task in lab.database.all(TASK):
        if Tables(lab.database, task["ReplicationTaskArn"]).get(RETURNS) is not None:
            load_again(lab.database, task["ReplicationTaskArn"], [RETURNS])
    return {}


def _in_error(lab: Lab, task: Document) -> bool:
    table = Tables(lab.database, task["ReplicationTaskArn"]).get(RETURNS)
    looked_for = read_mappings(task["TableMappings"]).select("shop", "returns") and not _held_back(lab, task)
    return not looked_for or (table is not None and table["TableState"] == FAILED)


def _grant(lab: Lab, _: Planted) -> None:
    with lab.databases.connect("source") as source:
        if _has(source, RETURNS):
            source.execute(f"grant select on {RETURNS} to dms")


def _clash(lab: Lab, _: str) -> Planted:
    """The target has a row already that the source makes now: PostgreSQL's own apply fails on it."""
    insert = (
        "insert into shop.customers (id, email, name, preferences, newsletter, registered_at) overriding system value"
        " values (%s, %s, %s, '{}', false, '2025-06-01 12:00+00') on conflict do nothing"
    )
    with lab.databases.connect("source") as source, lab.databases.connect("target") as target:
        _loaded(target, "shop.customers")
        target.execute(insert, [CLASHING, "conflict@example.com", "Made on the target"])
        source.execute(insert, [CLASHING, "conflict@example.com", "Made at the source"])
        return {"id": CLASHING}


def _end_clash(lab: Lab, planted: Planted) -> None:
    """Take the row off both sides, forget the exception, and load the table again: its counters begin anew."""
    with lab.databases.connect("source") as source, lab.databases.connect("target") as target:
        source.execute("delete from shop.customers where id = %s", [planted["id"]])
        if _has(target, "public.awsdms_apply_exceptions"):
            target.execute(
                'delete from public.awsdms_apply_exceptions where "TABLE_NAME" = %s and "STATEMENT" like %s',
                ["customers", f"%({planted['id']},%"],
            )
    for task in lab.database.all(TASK):
        applies = task["MigrationType"] != "full-load"  # MariaDB's task has other customers
        if applies and Tables(lab.database, task["ReplicationTaskArn"]).get("shop.customers") is not None:
            load_again(lab.database, task["ReplicationTaskArn"], ["shop.customers"])


def _paused(_: Lab, task: Document) -> bool:
    return bool(task.get("HeldBack") == SWAP)


def _held_back(_: Lab, task: Document) -> bool:
    return task.get("HeldBack") is not None  # a pause holds back what a lag would


def _drop_role(lab: Lab, _: str) -> Planted:
    lab.bus.drop_role(VPC_ROLE)
    return {}


def _make_role(lab: Lab, _: Planted) -> None:
    lab.bus.make_role(VPC_ROLE)


def _change_password(lab: Lab, _: str) -> Planted:
    _set_password(lab, secrets.token_urlsafe(18))
    return {}


def _restore_password(lab: Lab, _: Planted) -> None:
    _set_password(lab, lab.databases.password("target", "dms"))


def _set_password(lab: Lab, password: str) -> None:
    from psycopg import sql

    with lab.databases.connect("target", options=SECRETIVE) as target:
        target.execute(sql.SQL("alter role dms password {}").format(sql.Literal(password)))


def _has(connection: psycopg.Connection[Any], table: str) -> bool:
    found = connection.execute("select to_regclass(%s) is not null", [table]).fetchone()
    return bool(found and found[0])


DMS_FAULTS = (
    Fault(
        "target-row-changed",
        f"Somebody has changed the name of customer {CHANGED} on the target. DMS's own validation does not notice it "
        "before the table is validated again.",
        "06: The rows are the same on both sides",
        "runbook run 06, plant it, runbook run 06",
        "Load the table again (ReloadTables) or correct the row; or `runbook lab mend target-row-changed`.",
        plant=_change_row,
        mend=_change_row_back,
    ),
    Fault(
        "target-row-lost",
        f"Customer {LOST} is gone from the target.",
        "06: The rows are the same on both sides",
        "runbook run 06, plant it, runbook run 06",
        "Load the table again (ReloadTables); or `runbook lab mend target-row-lost`.",
        plant=_lose_row,
        mend=_bring_row_back,
    ),
    Fault(
        "sequence-behind",
        "The target's sequence of orders is back at 1: the next order that is made there fails, duplicate key.",
        "06: No sequence is behind",
        "runbook run 06, plant it, runbook run 06 -p apply_repairs=nothing",
        "Run 06 as it is: on the lab it repairs everything; or `runbook lab mend sequence-behind`.",
        plant=_set_sequence_back,
        mend=_set_sequence_on,
    ),
    Fault(
        "table-without-grants",
        f"A table {RETURNS} has come to the source, and DMS's user may not read it: its full load fails over and over.",
        "06: Every mapped table is loaded",
        "plant it, runbook run 06",
        f"grant select on {RETURNS} to dms, at the source; or `runbook lab mend table-without-grants`. {DEALT_WITH}",
        plant=_make_table_without_grants,
        mend=_grant,
        met=_in_error,
    ),
    Fault(
        "apply-conflict",
        "Both sides make the same customer. The insert cannot be applied, is written into awsdms_apply_exceptions and "
        "left out; the task goes on.",
        "06: What was captured was applied",
        "runbook run 06, plant it, runbook run 06",
        f"Correct the row and load the table again (ReloadTables); or `runbook lab mend apply-conflict`. {DEALT_WITH}",
        plant=_clash,
        mend=_end_clash,
    ),
    Fault(
        SWAP,
        "The reader of the source is paused, as when the sorter's swap files have reached their limit: the log says "
        "so, the task stays running, and nothing more is captured or applied.",
        "06: The logs have no known trouble",
        "runbook run 06, plant it, runbook run 06",
        "Wait until the log says that reading is resumed: `runbook lab mend swap-pause`.",
        met=_paused,
    ),
    Fault(
        LAG,
        "Changes are captured and not applied; the task stays running, and the target falls behind.",
        "06: The lag is zero now",
        "runbook run 06, plant it, runbook run 06",
        "Let the target catch up: `runbook lab mend replication-lag`, and run 06 once more.",
        met=_held_back,
    ),
    Fault(
        "dms-role-missing",
        f"The IAM role {VPC_ROLE} is gone. The task goes on; nobody can make another replication instance.",
        "06: The roles that DMS needs exist",
        "plant it, runbook run 06",
        "Run the cell of 06 that makes the roles; or `runbook lab mend dms-role-missing`.",
        plant=_drop_role,
        mend=_make_role,
    ),
    Fault(
        "endpoint-failing",
        "The password of DMS's user on the target was changed: a connection test of the endpoint fails.",
        "06: Both endpoints answer",
        "plant it, runbook run 06",
        "Give the endpoint the right password; or `runbook lab mend endpoint-failing`.",
        plant=_change_password,
        mend=_restore_password,
    ),
)
