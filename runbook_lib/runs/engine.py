"""Which engine runs a notebook and tells the truth about it? papermill's entry point `runbook`.

papermill imports every engine that is installed, so this imports nothing but the standard library.
"""

from __future__ import annotations

from typing import Any

NAME = "runbook"


class RunbookEngine:
    """What papermill asks of an engine: `papermill --engine runbook …` makes it do the work."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **options: Any) -> Any:
        """Execute a notebook that papermill has put the parameters into; the notebook as it was written, masked."""
        from .execution import execute

        return execute(nb, kernel_name, output_path, **options)

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """The kernel that a notebook asks for."""
        from papermill.utils import nb_kernel_name

        kernel: str = nb_kernel_name(nb, name)
        return kernel

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """The language that a notebook is in."""
        from papermill.utils import nb_language

        found: str = nb_language(nb, language)
        return found
