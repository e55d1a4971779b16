"""One of several training processes that saves its weights: python -m tests.training.two_processes SCRIPT FLAGS..."""

import importlib
import sys

import torch
import tyro

from training.engine import Engine


def main(name: str, arguments: list[str]) -> None:
    script = importlib.import_module(name)
    chosen = script.PRESETS["lite" if "--initial-motion-steps" in arguments else "paper"]
    config = tyro.cli(type(chosen), default=chosen, args=arguments)
    engine = Engine(config)
    state = {}
    for trainer in script.trainers(config, engine):
        assert trainer.fit()
        for network_name, network in trainer.networks.items():
            for key, parameter in network.named_parameters():
                state[f"{network_name}.{key}"] = parameter.detach().clone()
    torch.save(state, f"process_{engine.rank}.pt")
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
