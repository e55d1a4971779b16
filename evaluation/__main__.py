"""python -m evaluation COMMAND: one command for each table of the paper, and others."""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

from typing import Any

from evaluation.figures import Compare, Report, Sheet
from evaluation.offsets import Offsets
from evaluation.paper_tables import Score, Table1, Table4, Table5
from evaluation.user_study import Study, Table2
from evaluation.validation import Table3, Validate
from runtime.command_line import run

COMMANDS: Any = (
    Validate | Offsets | Table1 | Table2 | Table3 | Table4 | Table5 | Score | Study | Sheet | Compare | Report
)

if __name__ == "__main__":
    run(lambda command: command.run(), COMMANDS, prog="python -m evaluation")
