"""What can go wrong, as one tree; each message says what happened, to what, and what to do next.

RunbookError
├── SettingsError            an environment file or a parameter is wrong
├── CheckFailed              a check of the runbook does not hold
├── ChangeRefused            the rails stopped a change: wrong account, changes off, endpoint in conflict
├── AwsError                 AWS (or the lab) answered with an error
│   ├── AccessDenied         … because a permission is missing
│   ├── CredentialsExpired   … because the session ended; what runs at AWS goes on
│   ├── OutcomeUnknown       a Start call was sent and no answer came: look before starting again
│   └── TooOld               … with something that was made before what it should show
├── WaitTimedOut             a wait came to its end; what we waited for goes on
├── CommandFailed            a command on the application server failed
├── NotFound                 a name matches nothing
├── Ambiguous                a name could be several things
├── LabError                 the embedded lab cannot start or answer
├── EvidenceError            a record cannot be closed or signed, or is not what it says
├── InventoryError           an inventory of files is not there, not whole, or cannot be compared
│   └── TornStream           … because what a scan or a listing said ended early or is damaged
└── DatabaseError            a database refused, cannot be reached, or holds what cannot be compared
"""

from __future__ import annotations


class RunbookError(Exception):
    """Base of all errors of the runbook."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines instead of a stack of library frames."""
        return [f"{type(self).__name__}: {self}"]


class SettingsError(RunbookError):
    """An environment file or a parameter is wrong."""


class CheckFailed(RunbookError):
    """A check of the runbook does not hold."""

    def _render_traceback_(self) -> list[str]:
        """The box above this line has the reason and what to do: not a second time."""
        return [f"CheckFailed: {str(self).partition(': ')[0]}. See FAIL above."]


class ChangeRefused(RunbookError):
    """The rails stopped a change before it was sent."""


class AwsError(RunbookError):
    """AWS answered a call with an error. `code` is AWS's own error code."""

    def __init__(self, message: str, *, code: str = "", operation: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.operation = operation
        self.request_id = request_id


class AccessDenied(AwsError):
    """A permission is missing."""


class CredentialsExpired(AwsError):
    """The session's credentials ended; what was started at AWS goes on."""


class OutcomeUnknown(AwsError):
    """A call that starts something was sent and no answer came."""


class TooOld(AwsError):
    """What AWS made is older than what it should show."""


class WaitTimedOut(RunbookError):
    """A wait came to its end; what was waited for goes on."""


class CommandFailed(RunbookError):
    """A command on a host ended with a non-zero exit status."""


class NotFound(RunbookError):
    """A name matches nothing."""


class Ambiguous(RunbookError):
    """A name could be several things."""


class LabError(RunbookError):
    """The embedded lab cannot start or answer."""


class EvidenceError(RunbookError):
    """A record cannot be closed or signed, or is not what it says."""


class DatabaseError(RunbookError):
    """A database refused, cannot be reached, or holds what cannot be compared."""


class InventoryError(RunbookError):
    """An inventory of files is not there, not whole, or cannot be compared."""


class TornStream(InventoryError):
    """What a scan or a listing said ended early or is damaged."""
