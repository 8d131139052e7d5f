"""A model -> a smaller one, with the price written beside it: size, speed, quality before and after."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import files
from danlu.errors import UserError

if TYPE_CHECKING:
    from danlu.graph import Context
    from danlu.model import Model

VERSION = 1
_TOKENS = 64  # generated to time decoding


def run(context: "Context") -> None:
    """Write the int8 model folder and compare.json into context.out."""
    from danlu.model import Model
    from danlu.stages.evaluate import measure

    before = Model.from_pretrained(context.inputs["model"], context.use_machine())
    role = "tuning_columns" if "tuning_columns" in context.inputs else "columns"
    table: dict[str, Any] = {"before": figures(before), "after": {}}
    table["before"] |= measure(before, context.inputs[role], before.task)
    context.progress(0.5, 1)
    after = compressed(before)
    after.save_pretrained(context.out)
    table["after"] = figures(after) | measure(after, context.inputs[role], after.task)
    files.write_json(context.out / "compare.json", {"schema": files.SCHEMA, **table})
    context.facts |= table
    context.output_hash = files.tensors_hash(after.net.state_dict())
    context.progress(1, 1)


def compressed(model: "Model") -> "Model":
    """The model with 8-bit weights; the network given is left as it is."""
    import copy

    from danlu.adapt.quantize import quantize
    from danlu.model import Model

    made = quantize(copy.deepcopy(model.net))
    smaller = Model(made, model.architecture, model.task)
    smaller.taught_chat, smaller.quantized = model.taught_chat, "int8"
    return smaller.eval()


def figures(model: "Model") -> dict[str, float]:
    """Bytes of the weights, and tokens per second of greedy decoding, or of reading (the faster of two rounds)."""
    size = sum(t.numel() * t.element_size() for t in model.net.state_dict().values())
    limit = min(_TOKENS, model.context - 2)
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        made = (_spoken if model.task.ahead else _read)(model, limit)
        best = min(best, (time.perf_counter() - start) / max(1, made))
    return {"megabytes": size / 1e6, "tokens_per_second": 1 / best}


def _spoken(model: "Model", limit: int) -> int:
    """Generate so many tokens."""
    from danlu.nn.generate import Sampling, generate

    way = Sampling(max_tokens=limit, temperature=0.0)
    return sum(1 for _ in generate(model.net, [model.processor.end_id], way, end_ids=set()))


def _read(model: "Model", limit: int) -> int:
    """Read one text of so many tokens."""
    import torch

    with torch.inference_mode():
        ids = torch.full((1, limit), model.processor.closing, device=model.net.device)
        model.net({"input_ids": ids, model.net.continues: ids})
    return limit


def compress_folder(source: Path, target: Path, device: str = "cpu") -> dict[str, Any]:
    """`danlu compress MODEL`: the int8 twin of any model folder, with size and speed compared.

    Raises:
        UserError: E616, the model reads no tokens.
    """
    from danlu.model import Model
    from danlu.nn.embed import Tokens

    before = Model.from_pretrained(source, device)
    if not isinstance(before.net.embed, Tokens):
        raise UserError("E616", path=source, task=before.task_name)
    after = compressed(before)
    with files.staged(target) as out:
        after.save_pretrained(out)
    return {"before": figures(before), "after": figures(after), "folder": str(target)}
