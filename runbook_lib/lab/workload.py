"""What does the shop do all day? Customers order and pay, parcels leave, prices change, old orders go.

`Workload` keeps doing it at a rate, over restarts of servers and of the lab, until it is stopped. A burst is a fixed
number of the same transactions, committed now; on the rows that a lab begins with it makes the same changes each time.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..errors import LabError
from .database import Database
from .databases import Databases

if TYPE_CHECKING:
    import psycopg

RATE = 20.0  # transactions a second
FASTEST = 1000.0
SETTING = "workload"  # {"rate": 20.0} while it is on
CUSTOMERS, PRODUCTS, DOCUMENTS = 4000, 400, 150  # as many as shop.sql makes; none of them is ever deleted
NEXT = {"open": "paid", "paid": "shipped", "shipped": "delivered", "delivered": "delivered", "cancelled": "cancelled"}
LIMIT = "-c statement_timeout=5s"  # somebody's lock must not keep it from stopping
PATIENCE = 8.0  # seconds that a transaction gets to end
VAT = Decimal("1.1900")

log = logging.getLogger(__name__)


def _order(session: psycopg.Connection[Any], dice: random.Random) -> None:
    """A customer orders one to three products, and most pay at once."""
    lines = [(f"SKU-{dice.randint(1, PRODUCTS):05d}", dice.randint(1, 5)) for _ in range(dice.randint(1, 3))]
    asked = session.execute("select sku, price from shop.products where sku = any(%s)", [[sku for sku, _ in lines]])
    prices = dict(asked.fetchall())
    lines = [(sku, quantity) for sku, quantity in lines if sku in prices]
    if not lines:
        return  # somebody has deleted products
    total = VAT * sum(prices[sku] * quantity for sku, quantity in lines)
    paid = dice.random() < 0.6
    note = dice.choice([None, None, None, "", "Bitte klingeln", "문 앞에 놓아 주세요"])
    (order,) = session.execute(
        "insert into shop.orders (customer_id, status, total, note) values (%s, %s, %s, %s) returning id",
        [dice.randint(1, CUSTOMERS), "paid" if paid else "open", total, note],
    ).fetchone() or (0,)
    session.cursor().executemany(
        "insert into shop.order_items values (%s, %s, %s, %s, %s, %s)",
        [
            (order, number, sku, quantity, prices[sku], dice.choice([None, None, "Alles Gute! 🎂"]))
            for number, (sku, quantity) in enumerate(lines, 1)
        ],
    )
    if paid:
        _pay(session, order)


def _pay(session: psycopg.Connection[Any], order: int) -> None:
    session.execute(
        "insert into shop.payments (id, order_id, method, amount, fee, paid_at)"
        " select md5('payment ' || id)::uuid, id, 'card', total, total::real * 0.0129, localtimestamp"
        " from shop.orders where id = %s on conflict (order_id) do nothing",
        [order],
    )


def _some_order(session: psycopg.Connection[Any], dice: random.Random) -> tuple[int, str] | None:
    """An order that nobody else changes meanwhile: its id and status. None when there is none."""
    (last,) = session.execute("select max(id) from shop.orders where id > 0").fetchone() or (None,)
    if last is None:
        return None
    found: tuple[int, str] | None = session.execute(
        "select id, status from shop.orders where id >= %s order by id limit 1 for update", [dice.randint(1, last)]
    ).fetchone()
    return found


def _advance(session: psycopg.Connection[Any], dice: random.Random) -> None:
    """An order is paid, shipped or delivered; one that is finished gets a note."""
    found = _some_order(session, dice)
    if found is None:
        return
    order, status = found
    session.execute(
        "update shop.orders set status = %(next)s,"
        " shipped_at = case when %(next)s = 'shipped' then now() else shipped_at end,"
        " note = case when %(next)s = status then nullif(%(note)s, note) else note end where id = %(order)s",
        {"next": NEXT.get(status), "note": dice.choice(["complained", "nachgefragt"]), "order": order},
    )
    if status == "open":
        _pay(session, order)


def _edit(session: psycopg.Connection[Any], dice: random.Random) -> None:
    """A customer moves, a price changes, or a paper is filed."""
    kind = dice.randrange(3)
    if kind == 0:
        session.execute(
            "update shop.customers set preferences = jsonb_set(preferences, '{address,street}', to_jsonb(%s::text)),"
            " phone = case when phone is null then '+49 30 1234567' end where id = %s",
            [f"Lindenallee {dice.randint(1, 99)}", dice.randint(1, CUSTOMERS)],
        )
    elif kind == 1:
        session.execute(
            "update shop.products set price = %s, attributes = attributes || '{\"sale\": true}' where sku = %s",
            [Decimal(dice.randint(99, 49_999)) / 100, f"SKU-{dice.randint(1, PRODUCTS):05d}"],
        )
    else:
        session.execute(
            "update shop.documents set labels = labels || %s::text, scan = decode(md5(%s::text), 'hex') where id = %s",
            ["abgelegt", dice.random(), dice.randint(1, DOCUMENTS)],
        )


def _remove(session: psycopg.Connection[Any], dice: random.Random) -> None:
    """An order goes, with its items and its payment."""
    found = _some_order(session, dice)
    if found is not None:
        session.execute("delete from shop.orders where id = %s", [found[0]])


def _tidy(session: psycopg.Connection[Any], _: random.Random) -> None:
    """The audit log forgets its oldest entries: as many as are made until the next time."""
    session.execute(
        "delete from shop.audit_log where ctid = any(array("
        "select ctid from shop.audit_log order by changed_at limit 20))"
    )


Deed = Callable[["psycopg.Connection[Any]", random.Random], None]
BURST: tuple[Deed, ...] = (_order, _advance, _order, _edit, _order, _advance, _order, _remove)
DAY: tuple[Deed, ...] = (_order,) * 6 + (_advance,) * 5 + (_edit,) * 2 + (_remove,) * 6 + (_tidy,)


class Workload:
    """The shop of one lab at work. Whether it is on outlives the process; `pause` is for the process's end."""

    def __init__(self, database: Database, databases: Databases) -> None:
        self._database = database
        self._databases = databases
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._committed = self._failed = 0
        self._said = ""

    def start(self, rate: float = RATE) -> None:
        """From now on, `rate` transactions a second."""
        if not 0 < rate <= FASTEST:
            raise LabError(f"The rate is above 0 and at most {FASTEST:.0f} transactions a second, not {rate}.")
        self.pause()
        self._database.set(SETTING, {"rate": rate})
        self.resume()

    def stop(self) -> None:
        """No more; the last transaction is committed when this returns, or LabError says that it does not end."""
        self._database.set(SETTING, None)
        if not self.pause():
            raise LabError(f"The workload's last transaction has not ended for {PATIENCE:.0f} s; it is the last one.")

    def resume(self) -> None:
        """Go on when it is on and does not run. The servers start in the background."""
        with self._lock:
            setting = self._database.setting(SETTING)
            if setting is None or self._thread is not None:
                return
            self._stopping = threading.Event()
            arguments = (float(setting["rate"]), self._stopping)
            self._thread = threading.Thread(target=self._work, args=arguments, name="workload", daemon=True)
            self._thread.start()

    def pause(self) -> bool:
        """Stop working; a lab that starts later goes on. False when the last transaction goes on for too long."""
        with self._lock:
            self._stopping.set()
            thread, self._thread = self._thread, None
        if thread is None:
            return True
        thread.join(PATIENCE)
        if thread.is_alive():
            log.error("The workload's last transaction does not end; it is not waited for")
        return not thread.is_alive()

    def status(self) -> dict[str, Any]:
        """Whether it is on, how fast, whether it works now, and what it did in this process."""
        setting, thread = self._database.setting(SETTING), self._thread
        found = {"on": setting is not None, "rate": setting["rate"] if setting else 0.0}
        found["working"] = thread is not None and thread.is_alive()
        return found | {"committed": self._committed, "failed": self._failed, "error": self._said}

    def burst(self, transactions: int = 80) -> None:
        """Of eight transactions four are new orders, three updates, one a delete; each is committed by itself."""
        dice = random.Random(2025)
        with self._databases.connect("source", "shop", options=LIMIT) as session:
            for number in range(transactions):
                with session.transaction():
                    BURST[number % len(BURST)](session, dice)

    def _work(self, rate: float, stopping: threading.Event) -> None:
        """Work until `stopping`; what an outage made it miss is not made up for, and no error ends it."""
        dice = random.Random()
        while not stopping.is_set():
            try:
                with self._databases.connect("source", "shop", options=LIMIT) as session:
                    self._serve(session, dice, rate, stopping)
            except Exception as error:
                self._failed += 1
                self._said = " ".join(f"{type(error).__name__}: {error}".split())
                log.warning("The workload was interrupted: %s", self._said, exc_info=isinstance(error, LookupError))
                stopping.wait(0.2)

    def _serve(
        self, session: psycopg.Connection[Any], dice: random.Random, rate: float, stopping: threading.Event
    ) -> None:
        due = time.monotonic()
        while not stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / rate, time.monotonic() - 1)
            with session.transaction():
                dice.choice(DAY)(session, dice)
            self._committed += 1
