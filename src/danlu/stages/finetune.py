"""A trained model -> the same model on a narrower task: all of it, its last layers, its head, or adapters beside it."""

import time
from typing import TYPE_CHECKING, Any

from danlu.stages.pretrain import look as look

if TYPE_CHECKING:
    from danlu.graph import Context

VERSION = 6
RESUMABLE = True
RANKS = True


def run(context: "Context") -> None:
    """Tune and write a model folder into context.out."""
    from danlu import adapt
    from danlu.adapt import peft
    from danlu.stages.pretrain import from_base, train

    started, config = time.monotonic(), context.config
    device = context.use_machine()
    model = from_base(context)
    adapt.apply(model.net, _adapters(config), config["seed"])
    for name in model.new:
        model.net.get_submodule(name).requires_grad_(True)
    if config.get("keep_adapters"):
        peft.kind_of(model.net)  # before anything slow
    train(context, model, started, device, context.loaded.recipe.begins("finetune"))


def _adapters(config: dict[str, Any]) -> list[dict[str, Any]]:
    from danlu import adapt

    return config.get("adapt") or adapt.short(config.get("tune", "full"))


def check(config: dict[str, Any]) -> None:
    """Raise UserError E111 where there is no such task, E120 no such adapter, E331 none that can be kept."""
    from danlu import adapt, tasks

    tasks.check(config["task"])
    for entry in config.get("adapt") or ():
        adapt.adapter(entry)
    if config.get("keep_adapters"):
        adapt.check_kept(_adapters(config))
