"""What does a task do when it is not told otherwise? DMS answers with the whole document, defaults and all.

Defaults: DMS user guide, "Specifying task settings for AWS Database Migration Service tasks".
"""

from __future__ import annotations

import copy
import json
from typing import Any

from .protocol import Refusal

Settings = dict[str, Any]
PREPARATIONS = ("DO_NOTHING", "DROP_AND_CREATE", "TRUNCATE_BEFORE_LOAD")
_COMPONENTS = (
    "TRANSFORMATION", "SOURCE_UNLOAD", "IO", "TARGET_LOAD", "PERFORMANCE", "SOURCE_CAPTURE", "SORTER", "REST_SERVER",
    "VALIDATOR_EXT", "TARGET_APPLY", "TASK_MANAGER", "TABLES_MANAGER", "METADATA_MANAGER", "FILE_FACTORY", "COMMON",
    "ADDONS", "DATA_STRUCTURE", "COMMUNICATION", "FILE_TRANSFER",
)  # fmt: skip
DEFAULTS: Settings = {
    "TargetMetadata": {
        "TargetSchema": "", "SupportLobs": True, "FullLobMode": False, "LobChunkSize": 64, "LimitedSizeLobMode": True,
        "LobMaxSize": 32, "InlineLobMaxSize": 0, "LoadMaxFileSize": 0, "ParallelLoadThreads": 0,
        "ParallelLoadBufferSize": 0, "BatchApplyEnabled": False, "TaskRecoveryTableEnabled": False,
        "ParallelLoadQueuesPerThread": 0, "ParallelApplyThreads": 0, "ParallelApplyBufferSize": 0,
        "ParallelApplyQueuesPerThread": 0,
    },
    "FullLoadSettings": {
        "TargetTablePrepMode": "DROP_AND_CREATE", "CreatePkAfterFullLoad": False,
        "StopTaskCachedChangesApplied": False, "StopTaskCachedChangesNotApplied": False, "MaxFullLoadSubTasks": 8,
        "TransactionConsistencyTimeout": 600, "CommitRate": 10000,
    },
    "Logging": {
        "EnableLogging": False,
        "LogComponents": [{"Id": name, "Severity": "LOGGER_SEVERITY_DEFAULT"} for name in _COMPONENTS],
    },
    "ControlTablesSettings": {
        "ControlSchema": "", "HistoryTimeslotInMinutes": 5, "HistoryTableEnabled": False,
        "SuspendedTablesTableEnabled": False, "StatusTableEnabled": False, "FullLoadExceptionTableEnabled": False,
    },
    "StreamBufferSettings": {"StreamBufferCount": 3, "StreamBufferSizeInMB": 8, "CtrlStreamBufferSizeInMB": 5},
    "ChangeProcessingDdlHandlingPolicy": {
        "HandleSourceTableDropped": True, "HandleSourceTableTruncated": True, "HandleSourceTableAltered": True,
    },
    "ErrorBehavior": {
        "DataErrorPolicy": "LOG_ERROR", "DataTruncationErrorPolicy": "LOG_ERROR", "DataErrorEscalationPolicy":
        "SUSPEND_TABLE", "DataErrorEscalationCount": 0, "TableErrorPolicy": "SUSPEND_TABLE",
        "TableErrorEscalationPolicy": "STOP_TASK", "TableErrorEscalationCount": 0, "RecoverableErrorCount": -1,
        "RecoverableErrorInterval": 5, "RecoverableErrorThrottling": True, "RecoverableErrorThrottlingMax": 1800,
        "RecoverableErrorStopRetryAfterThrottlingMax": True, "ApplyErrorDeletePolicy": "IGNORE_RECORD",
        "ApplyErrorInsertPolicy": "LOG_ERROR", "ApplyErrorUpdatePolicy": "LOG_ERROR", "ApplyErrorEscalationPolicy":
        "LOG_ERROR", "ApplyErrorEscalationCount": 0, "ApplyErrorFailOnTruncationDdl": False,
        "FullLoadIgnoreConflicts": True, "FailOnTransactionConsistencyBreached": False,
        "FailOnNoTablesCaptured": False,
    },
    "ChangeProcessingTuning": {
        "BatchApplyPreserveTransaction": True, "BatchApplyTimeoutMin": 1, "BatchApplyTimeoutMax": 30,
        "BatchApplyMemoryLimit": 500, "BatchSplitSize": 0, "MinTransactionSize": 1000, "CommitTimeout": 1,
        "MemoryLimitTotal": 1024, "MemoryKeepTime": 60, "StatementCacheSize": 50,
    },
    "ValidationSettings": {
        "EnableValidation": False, "ValidationMode": "ROW_LEVEL", "ThreadCount": 5, "FailureMaxCount": 10000,
        "TableFailureMaxCount": 1000, "HandleCollationDiff": False, "ValidationOnly": False,
        "RecordFailureDelayLimitInMinutes": 0, "RecordFailureDelayInMinutes": 5, "RecordSuspendDelayInMinutes": 30,
        "SkipLobColumns": False, "ValidationPartialLobSize": 0, "ValidationQueryCdcDelaySeconds": 0,
        "PartitionSize": 10000, "MaxKeyColumnSize": 8096,
    },
    "PostProcessingRules": None,
    "CharacterSetSettings": None,
    "LoopbackPreventionSettings": None,
    "BeforeImageSettings": None,
    "FailTaskWhenCleanTaskResourceFailed": False,
    "TTSettings": None,
}  # fmt: skip


def expanded(given: str | None, base: Settings | None = None) -> Settings:
    """The whole document: defaults, or a task's settings so far, with what is given set over them; Refusal of others.

    A section that is given replaces only the values it names.
    """
    settings = copy.deepcopy(base or DEFAULTS)
    if not given:
        return settings
    try:
        document = json.loads(given)
    except ValueError as error:
        raise _refused(f"Invalid JSON: {error}") from error
    if not isinstance(document, dict):
        raise _refused("it is not a JSON object")
    for section, values in document.items():
        if section not in settings:
            raise _refused(f"{section[:60]!r} is no section")
        if isinstance(settings[section], dict) and isinstance(values, dict):
            _merge(section, settings[section], values)
        else:
            settings[section] = values
    if settings["FullLoadSettings"]["StopTaskCachedChangesNotApplied"]:
        raise _refused("the lab does not have StopTaskCachedChangesNotApplied; StopTaskCachedChangesApplied it has")
    prepared = settings["FullLoadSettings"]["TargetTablePrepMode"]
    if prepared not in PREPARATIONS:
        raise _refused(f"TargetTablePrepMode is one of {', '.join(PREPARATIONS)}, not {prepared!r}")
    return settings


def _merge(section: str, into: Settings, values: Settings) -> None:
    for name, value in values.items():
        wanted = type(into.get(name))
        if name in into and value is not None and wanted is not type(None) and type(value) is not wanted:
            raise _refused(f"{section}.{name} is a {wanted.__name__}, not {value!r}")
        into[name] = value


def _refused(reason: str) -> Refusal:
    return Refusal("InvalidParameterValueException", f"Task Settings are not valid: {reason}.")
