"""The transfer worker: a process that carries one execution's bytes, and can be killed without harm.

Started by the daemon as `python -m runbook_lib.lab.transfer`; its job comes as the first line of its standard input.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator

from .transfer_channel import Cancelled, standard_channel
from .transfer_copy import Copier, remove
from .transfer_job import Hands, Job
from .transfer_plan import Delete, Transfer, plan
from .transfer_source import Item
from .transfer_verify import verify_everything, verify_path

# DataSync user guide, troubleshooting task verification; word for word.
MISMATCHES = (
    "Transfer and verification completed. Verification detected mismatches. "
    "Files with mismatches are listed in Cloud Watch Logs"
)
# AWS's text for files that could not be read is not documented.
NOT_TRANSFERRED = "Transfer completed. Some files could not be transferred; they are listed in Cloud Watch Logs"


def run(hands: Hands) -> None:
    """All phases of one execution. With TransferMode ALL nothing is prepared, with VerifyMode NONE nothing verified."""
    began = time.time()
    job, channel = hands.job, hands.channel
    if job.options["TransferMode"] != "ALL":
        channel.enter("PREPARING")
    steps = plan(hands) if job.parallel else _prepared(hands)
    verifying = job.options["VerifyMode"]
    each = verifying == "ONLY_FILES_TRANSFERRED"
    with hands.spool() as transferred:
        if not job.parallel:
            channel.enter("TRANSFERRING")
        for path in _copy(hands, steps):
            if each and job.enhanced:
                verify_path(hands, path)
            elif each:
                transferred.write(json.dumps(path.decode()) + "\n")
        channel.enter("TRANSFERRING")
        if verifying == "NONE":
            return
        channel.enter("VERIFYING")
        if verifying == "POINT_IN_TIME_CONSISTENT":
            verify_everything(hands, began)
        transferred.seek(0)
        for line in transferred:
            verify_path(hands, json.loads(line).encode())


def _prepared(hands: Hands) -> Iterator[Transfer | Delete]:
    """The whole plan, made before anything is copied and kept in a file."""
    spool = hands.spool()
    for step in plan(hands):
        if isinstance(step, Delete):
            spool.write(json.dumps([step.key, step.size]) + "\n")
        else:
            i = step.item
            fields = [i.path.decode(), i.mode, i.size, i.uid, i.gid, i.mtime, i.atime, step.overwrite, step.kind]
            spool.write(json.dumps(fields) + "\n")
    spool.seek(0)
    return _read(spool)


def _read(spool: Iterator[str]) -> Iterator[Transfer | Delete]:
    for line in spool:
        match json.loads(line):
            case [key, size]:
                yield Delete(key, size)
            case [path, *numbers, overwrite, kind]:
                yield Transfer(Item(path.encode(), *numbers), overwrite, kind)


def _copy(hands: Hands, steps: Iterator[Transfer | Delete]) -> Iterator[bytes]:
    """Do the plan; yields the path of each item once its object is visible, of folders only where they are verified.

    BASIC does not verify folders that it transferred (DescribeTaskExecution, FilesVerified).
    """
    copier = Copier(hands)
    try:
        for step in steps:
            hands.channel.enter("TRANSFERRING")
            if isinstance(step, Delete):
                remove(hands, step)
                continue
            copier.copy(step)
            if copier.full:
                yield from (c.item.path for c in copier.commit() if hands.job.enhanced or not c.item.is_folder)
        yield from (c.item.path for c in copier.commit() if hands.job.enhanced or not c.item.is_folder)
    except Cancelled:
        copier.discard()
        raise


def verdict(hands: Hands) -> dict[str, str]:
    """How the phases ended: an item that could not be copied, or was copied wrongly, makes the execution fail."""
    counts = (hands.counters.files, hands.counters.folders)
    end: dict[str, str] = {}
    if any(c.failed_list or c.failed_prepare for c in counts):
        end |= {"PrepareStatus": "ERROR", "ErrorCode": "TransferFailures", "ErrorDetail": NOT_TRANSFERRED}
    if any(c.failed_transfer or c.failed_delete for c in counts):
        end |= {"TransferStatus": "ERROR", "ErrorCode": "TransferFailures", "ErrorDetail": NOT_TRANSFERRED}
    if any(c.failed_verify for c in counts):
        end |= {"VerifyStatus": "ERROR", "ErrorCode": "VerificationMismatches", "ErrorDetail": MISMATCHES}
    return end


def main() -> int:
    """Take the job, do it, say how it ended."""
    channel = standard_channel()
    job = Job(**channel.receive())
    try:
        hands = Hands(job, channel)
        run(hands)
        hands.reports.finish()
        channel.progress(now=True)
        channel.send(end=verdict(hands) | ({"report": hands.reports.failure} if hands.reports.failure else {}))
    except Cancelled:
        channel.send(end={"ErrorCode": "Cancelled", "ErrorDetail": "The task execution was cancelled."})
    except Exception as error:  # whatever it is, the execution has to say so; the log has the rest
        traceback.print_exc(file=sys.stderr)
        detail = f"{type(error).__name__}: {error}"
        channel.send(end={"ErrorCode": "InternalError", "ErrorDetail": detail[:1000]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
