"""python -m evaluation COMMAND: every table of the paper, one command each."""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import importlib
import sys

from runtime import command_line

# Command -> module (imported only when needed), config, purpose. The function has the command's name.
COMMANDS = {
    "validate": ("validation", "ValidateConfig", "weights on a clip cache, beside baselines without a network"),
    "offsets": ("offsets", "OffsetsConfig", "by how many frames the sound of each clip is off"),
    "table1": ("paper_tables", "TableConfig", "methods by metrics, reconstruction and dubbing"),
    "table2": ("user_study", "Table2Config", "the user study's mean opinion scores"),
    "table3": ("validation", "Table3Config", "LSTM against Transformer"),
    "table4": ("paper_tables", "Table4Config", "without warping, without audio, in full"),
    "table5": ("paper_tables", "Table5Config", "numbers of reference images"),
    "score": ("paper_tables", "ScoreTableConfig", "any videos and methods, without the paper's rows"),
    "study": ("user_study", "StudyConfig", "the user study's web page"),
    "sheet": ("figures", "SheetConfig", "methods by frames with enlarged mouths, like the paper's Figure 4"),
    "compare": ("figures", "CompareConfig", "a side-by-side video"),
    "report": ("figures", "ReportConfig", "tables and sheets in one Markdown file"),
}


def print_usage() -> None:
    print("usage: python -m evaluation COMMAND [--help]\n\ncommands:")
    for command, (_, _, purpose) in COMMANDS.items():
        print(f"  {command:10} {purpose}")


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help"):
        print_usage()
        return
    if command == "--version":
        print(f"IP-LAP {command_line.version()}")
        return
    if command not in COMMANDS:
        print_usage()
        command_line.fail(f"there is no command {command}")
    del sys.argv[1]
    module_name, config, _ = COMMANDS[command]
    module = importlib.import_module(f"evaluation.{module_name}")
    command_line.run(getattr(module, command), getattr(module, config), prog=f"python -m evaluation {command}")


if __name__ == "__main__":
    main()
