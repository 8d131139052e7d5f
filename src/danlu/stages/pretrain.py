"""Encoded rows -> a model that learned from them alone (or from a base model on)."""

import time
from typing import TYPE_CHECKING, Any

from danlu import files
from danlu.messages import text

if TYPE_CHECKING:
    from danlu.data.loader import Loader
    from danlu.graph import Context
    from danlu.model import Model

VERSION = 1
RESUMABLE = True


def run(context: "Context") -> None:
    """Train and write a model folder into context.out; its output hash is that of the weights."""
    from danlu.modalities.text import Text
    from danlu.model import Model
    from danlu.train import size
    from danlu.train.plan import Plan

    started, config = time.monotonic(), context.config
    threads(context)
    if "base" in context.inputs:
        model = Model.from_pretrained(context.inputs["base"])
        model = Model(model.net, model.architecture, model.processor, config["task"])
    else:
        processor = Text.load(context.inputs["columns"])
        tokens = files.read_json(context.inputs["columns"] / "tokens.json")["splits"]["train"]["tokens"]
        begun = Plan.read(context.out)
        known = {"depth": begun.depth, "dropout": begun.dropout} if begun else {}
        section = config["model"].model_copy(update=known)
        architecture = size.architecture(section, config["train"], processor.vocab_size, tokens)
        model = Model.from_architecture(architecture, processor, config["task"], config["seed"])
    train(context, model, started, pretraining=True)


def check(config: dict[str, Any]) -> None:
    """Raise UserError E111 where there is no such task."""
    from danlu import tasks

    tasks.check(config["task"])


def threads(context: "Context") -> None:
    """Use the processor threads that the recipe asks for."""
    import torch

    if context.system.threads != "auto":
        torch.set_num_threads(context.system.threads)


def train(context: "Context", model: "Model", started: float, *, pretraining: bool) -> None:
    """What pretrain and finetune share: the loop on a model's network, then its folder."""
    from danlu.train.plan import Request
    from danlu.train.session import fit

    config = context.config
    loaders = _loaders(context, model)
    if loaders[0].dropped:
        count = {"dropped": f"{loaders[0].dropped:,}", "rows": f"{loaders[0].rows:,}", "context": model.context}
        context.view.line(text("train.too_long", **count))
    request = Request(model.task, config["train"], *loaders, pretraining, started)
    model.net.train()
    sample = _sampler(model, config["train"].sample)
    result = fit(request, model.net, context.out, config["seed"], context.view, sample)
    save(context, model, result.weights)
    context.facts |= result.facts | {"parameters": sum(p.numel() for p in model.net.parameters())}
    core = model.architecture.core
    context.facts |= {"depth": core.layers, "width": core.dim, "vocabulary": model.processor.vocab_size}


def save(context: "Context", model: "Model", weights: dict[str, Any]) -> None:
    """Write the model folder with the selected weights, adapters folded in."""
    from danlu.adapt.lora import merged_state

    weights = merged_state(model.net, weights)
    model.save_pretrained(context.out, weights)
    files.write_json(context.out / "metrics.json", {"schema": files.SCHEMA, **context.facts})
    context.output_hash = files.tensors_hash(weights)


def _loaders(context: "Context", model: "Model") -> tuple["Loader", "Loader | None"]:
    from danlu.data.columns import Columns
    from danlu.data.loader import Loader

    root = context.inputs["columns"] / "columns"
    made = [
        Loader(Columns(root / split), model.context, long=model.task.long, seed=context.config["seed"])
        for split in ("train", "valid")
    ]
    return made[0], made[1] if len(made[1]) else None


def _sampler(model: "Model", prompt: str | None) -> Any:
    """A function that continues the recipe's sample text with the network as it is now."""
    if not prompt:
        return None
    from danlu.nn.generate import Sampling

    def sample() -> str:
        training = model.net.training
        model.net.eval()
        made = model.predict(prompt, Sampling(max_tokens=48, temperature=0.8, top_p=0.95, seed=1))
        model.net.train(training)
        return (prompt + made).replace("\n", "⏎")

    return sample
