"""python -m evaluation COMMAND: every table of the paper, one command each."""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import functools
import importlib
import sys

from runtime import command_line

# Command -> module, function, its config, what it is for.
COMMANDS = {
    "validate": ("validation", "main", "Config", "weights on a clip cache, against baselines that need no network"),
    "offsets": ("offsets", "offsets", "Config", "by how many frames each clip's sound is off, as a list to move it by"),
    "table1": ("paper", "run", "Config", "methods by metrics, reconstruction and dubbing"),
    "table2": ("opinion", "mos", "Mos", "the user study's opinion scores (the same as mos)"),
    "table3": ("validation", "table3", "Table3", "LSTM against Transformer"),
    "table4": ("paper", "run", "Table4", "without warping, without audio, in full"),
    "table5": ("paper", "run", "Table5", "numbers of reference pictures"),
    "score": ("paper", "run", "Config", "any videos and methods, without the paper's rows"),
    "study": ("opinion", "study", "Study", "one web page that asks people for their opinion"),
    "mos": ("opinion", "mos", "Mos", "the answers as Table 2"),
    "sheet": ("pictures", "sheet", "Sheet", "methods by frames with zoomed mouths, like the paper's Figure 4"),
    "compare": ("pictures", "compare", "Compare", "a side-by-side video"),
    "report": ("pictures", "report", "Report", "tables, plots and sheets as one HTML file"),
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        lines = "\n".join(f"  {command:10} {what}" for command, (*_, what) in COMMANDS.items())
        print(f"usage: python -m evaluation COMMAND [--help]\n\ncommands:\n{lines}")
        if name in ("-h", "--help"):
            return
        command_line.fail(f"there is no command {name}")
    del sys.argv[1]
    home, function, config, _ = COMMANDS[name]
    module = importlib.import_module(f"evaluation.{home}")
    # `run` makes several tables.
    command = functools.partial(module.run, name) if function == "run" else getattr(module, function)
    command_line.run(command, getattr(module, config), prog=f"python -m evaluation {name}")


if __name__ == "__main__":
    main()
