"""python -m evaluation COMMAND: every table of the paper, one command each."""

import importlib
import sys

import command_line

COMMANDS = {
    "validate": (
        "evaluation.validation",
        "weights on a clip cache, against baselines without a network (no videos needed)",
    ),
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        lines = "\n".join(f"  {name:10} {what}" for name, (_, what) in COMMANDS.items())
        print(f"usage: python -m evaluation COMMAND [--help]\n\ncommands:\n{lines}")
        if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
            return
        command_line.fail(f"there is no command {sys.argv[1]}")
    name = sys.argv.pop(1)
    module = importlib.import_module(COMMANDS[name][0])
    command_line.run(module.main, module.Config, prog=f"python -m evaluation {name}")


if __name__ == "__main__":
    main()
