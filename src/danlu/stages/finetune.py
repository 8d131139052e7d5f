"""A trained model -> the same model on a narrower task: all of it, its last layers, its head, or adapters beside it."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danlu.graph import Context

VERSION = 2
RESUMABLE = True
RANKS = True


def run(context: "Context") -> None:
    """Tune and write a model folder into context.out."""
    from danlu import adapt
    from danlu.stages.pretrain import from_base, train

    started, config = time.monotonic(), context.config
    device = context.use_machine()
    model = from_base(context)
    adapters = config.get("adapt") or adapt.short(config.get("tune", "full"))
    adapt.apply(model.net, adapters, config["seed"])
    for name in model.new:
        model.net.get_submodule(name).requires_grad_(True)
    train(context, model, started, device, pretraining=False)


def check(config: dict[str, Any]) -> None:
    """Raise UserError E111 where there is no such task, E120 where there is no such adapter."""
    from danlu import adapt, tasks

    tasks.check(config["task"])
    for entry in config.get("adapt") or ():
        adapt.adapter(entry)
