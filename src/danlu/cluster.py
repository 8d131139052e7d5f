"""What a training would need on a described cluster: memory, step time and checkpoints per device.

`danlu run RECIPE --plan --system cluster.toml`. Nothing is measured here: every figure follows from the recipe, from
the file, and from the formulas that docs/*/explanation/scale.md derives, with their sources.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from danlu.config import Auto, Positive, PositiveInt, Section
from danlu.forecast import Sizes, shape_of
from danlu.graph import Life, State
from danlu.messages import text
from danlu.quantity import count, seconds
from danlu.recipe import read

if TYPE_CHECKING:
    from torch import nn

    from danlu.train.plan import Plan
    from danlu.train.trial import Synthetic

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]
_GRADIENT = 4  # bytes of one gradient on its way: they are summed in fp32
_WEIGHT = {"fp32": 4, "bf16": 2, "fp8": 2}  # bytes of one weight that is gathered


class Cluster(Section):
    """A cluster as its file describes it. Bandwidths are of one device, in one direction."""

    nodes: PositiveInt = Field(1, description="machines")
    devices: PositiveInt = Field(1, description="devices in one machine")
    memory_gb: Positive = Field(description="memory of one device")
    tflops: Positive = Field(description="dense matrix products of one device in the precision of the training")
    utilisation: Share = Field(0.4, description="share of it that a training step reaches")
    link_gb_s: Positive = Field(description="between the devices of one machine")
    network_gb_s: Positive | None = Field(None, description="between machines: one device's part of it")
    memory_gb_s: Positive | None = Field(
        None, description="of one device to its own memory, for updates and copies; left out, they count as nothing"
    )
    disk_gb_s: Positive = Field(description="of all devices together to the disk that they share")
    mtbf_hours: Positive = Field(50_000.0, description="between failures of one device")
    restart_min: Positive = Field(5.0, description="from a failure to the next step")
    parallel: Auto | Literal["ddp", "fsdp", "tensor"] = Field("auto", description="auto: replicas where they fit")

    @property
    def count(self) -> int:
        return self.nodes * self.devices

    @property
    def bandwidth(self) -> float:
        """Bytes per second of the slowest link that a sum over all devices passes."""
        slow = min(self.link_gb_s, self.network_gb_s or self.link_gb_s) if self.nodes > 1 else self.link_gb_s
        return slow * 1e9


@dataclass(frozen=True)
class Need:
    """What one training needs on a cluster; bytes and seconds."""

    devices: int
    parallel: str
    parameters: int
    memory: float  # of one device
    computing: float  # of one step
    moving: float  # in a device's own memory, in one step
    passing: float  # between the devices, in one step
    step: float
    steps: int
    tokens: int  # of one step
    checkpoint: float  # all of it
    checkpoint_here: float  # the part that one device writes, at most
    writing: float
    failure: float  # between failures of any device
    interval: float  # between checkpoints, where least is lost
    lost: float  # share of the time


def needs(life: Life, path: Path) -> list[dict[str, Any]]:
    """One row per figure, one column per training of the recipe.

    Raises:
        UserError: what is wrong in the file, as for a recipe.
    """
    cluster = read(path, Cluster)
    trainings = [state for state in life.states() if state.node.stage in ("pretrain", "finetune")]
    columns = {s.node.name: _shown(need(cluster, *planned(life, s, cluster.count)), cluster) for s in trainings}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    return [_row(name, {node: column[name] for node, column in columns.items()}) for name in names]


def _row(name: str, columns: dict[str, str]) -> dict[str, str]:
    """A figure, what it is in each training, and what it comes from."""
    return {text("cluster.figure"): text(f"cluster.{name}"), **columns, text("plan.from"): text(f"cluster.from.{name}")}


def planned(life: Life, state: State, devices: int = 1) -> tuple["nn.Module", "Plan", float | None]:
    """The network without memory, the plan that follows from the recipe alone, and the budget that is left to steps.

    Micro-batches are those of GPUs, of which each of the devices takes its share.
    """
    from danlu import adapt
    from danlu.models.architecture import empty
    from danlu.train import plan
    from danlu.train.trial import Synthetic, stands_in

    shape, vocab, tokens = shape_of(life, state, Sizes(life))
    train = state.node.config["train"]
    train = train.model_copy(update={"precision": "bf16"}) if train.precision == "auto" else train
    config = state.node.config
    adapters = config.get("adapt") or adapt.short(config.get("tune", "full"))
    net = adapt.apply(empty(shape), adapters, 0)
    loader: Any = Synthetic(shape.context, vocab, tokens)
    task, _ = stands_in(config["task"], shape, vocab, shape.context, config.get("options", {}))
    request = plan.Request(task, train, loader, None, life.loaded.recipe.begins(state.node.stage), 0.0)
    drafted = plan.draft(request, net)
    rows, accumulate = plan.cut(replace(request, device="cuda"), net, devices)
    drafted = replace(drafted, rows=rows, accumulate=accumulate, device="cuda")
    drafted = replace(drafted, steps=_steps(train, drafted, loader), step_gflop=plan.step_gflop(net, drafted))
    return net, drafted, seconds(train.budget) if train.budget else None


def _steps(train: Any, plan: "Plan", loader: "Synthetic") -> int:
    """As the recipe says; 0 where it gives a time."""
    rows = plan.rows * plan.accumulate
    tokens = count(train.tokens) if train.tokens is not None else (train.epochs or 0) * loader.predictions
    return int(train.steps or math.ceil(tokens / (rows * loader.context)))


def need(cluster: Cluster, net: "nn.Module", plan: "Plan", budget: float | None = None) -> Need:
    """What a training of `net` by `plan` needs."""
    from danlu.train import memory

    plan = _fitted(cluster, net, replace(plan, ranks=cluster.count, parallel=_parallel(cluster, net, plan)))
    weights = sum(p.numel() for p in net.parameters())
    computing = operations(net, plan) / (cluster.tflops * 1e12 * cluster.utilisation)
    moving = moved(net, plan) / (cluster.memory_gb_s * 1e9) if cluster.memory_gb_s else 0.0
    passing = traffic(net, plan) / cluster.bandwidth
    step = moving + (max(computing, passing) if plan.parallel == "fsdp" else computing + passing)
    saved = weights * (4.0 + memory.state(plan) + 4.0)  # weights, optimizer, the best weights
    failure = cluster.mtbf_hours * 3600 / cluster.count
    writing = saved / (cluster.disk_gb_s * 1e9)
    interval = math.sqrt(2 * writing * failure)
    lost = writing / interval + interval / 2 / failure + cluster.restart_min * 60 / failure
    return Need(
        devices=cluster.count, parallel=plan.parallel, parameters=weights, memory=memory.forecast(net, plan),
        computing=computing, moving=moving, passing=passing, step=step, steps=plan.steps or int((budget or 0) / step),
        tokens=plan.rows * plan.accumulate * plan.context, checkpoint=saved,
        checkpoint_here=saved * memory.held(net, plan), writing=writing, failure=failure,
        interval=interval, lost=min(1.0, lost),
    )  # fmt: skip


def _fitted(cluster: Cluster, net: "nn.Module", plan: "Plan") -> "Plan":
    """The plan with its steps cut finer until they fit into a device, as far as that helps."""
    from danlu.train import memory

    rows = plan.rows * plan.accumulate
    finer = (parts for parts in range(plan.accumulate, rows + 1) if rows % parts == 0)
    for form in (replace(plan, rows=rows // parts, accumulate=parts) for parts in finer):
        if memory.forecast(net, form) <= cluster.memory_gb * 1e9:
            return form
    return plan


def _parallel(cluster: Cluster, net: "nn.Module", plan: "Plan") -> str:
    """Replicas where they fit: they pass least."""
    from danlu.train import memory

    if cluster.parallel != "auto":
        return cluster.parallel
    replica = _fitted(cluster, net, replace(plan, ranks=cluster.count, parallel="ddp"))
    return "ddp" if memory.forecast(net, replica) <= cluster.memory_gb * 1e9 else "fsdp"


def operations(net: "nn.Module", plan: "Plan") -> float:
    """Operations of one step on the device that does most: a row is not shared, and by heads the blocks are."""
    whole = plan.step_gflop * 1e9
    if plan.parallel == "tensor":
        outside = 6.0 * _outside(net) * plan.rows * plan.accumulate * plan.context
        return outside + (whole - outside) / plan.ranks
    rows = plan.rows * plan.accumulate
    return whole * math.ceil(rows / plan.ranks) / rows


def _outside(net: "nn.Module") -> float:
    """Weights that multiply outside the blocks, as a step's operations count them."""
    from danlu.train import cost

    core: Any = getattr(net, "core", None)
    inside = set(core.blocks.parameters()) if core is not None else set()
    return sum(count for weight, count in cost.products(net).items() if weight not in inside)


def traffic(net: "nn.Module", plan: "Plan") -> float:
    """Bytes that one device sends in one step.

    A sum over N devices sends 2 (N - 1) / N of its size from each (a ring; Patarasuk & Yuan 2009). Sharded, each
    micro-batch gathers the weights twice, forward and backward, and scatters gradients once (arXiv:1910.02054). By
    heads, every block sums its activations twice forward and twice backward (arXiv:1909.08053).
    """
    part, weights = (plan.ranks - 1) / plan.ranks, sum(p.numel() for p in net.parameters())
    if plan.parallel == "fsdp":
        return plan.accumulate * part * weights * (2.0 * _WEIGHT[plan.precision] + _GRADIENT)
    if plan.parallel == "tensor":
        core: Any = net.core
        values = 4 * core.config.layers * core.config.dim * plan.rows * plan.accumulate * plan.context
        return 2 * part * values * _WEIGHT[plan.precision]
    return 2 * part * weights * _GRADIENT


def moved(net: "nn.Module", plan: "Plan") -> float:
    """Bytes that one device reads and writes in its own memory in one step, beside its products.

    Of each weight that it holds: gradient and state of the optimizer, read and written; the norm and the clipping. Of
    replicas: the gradient into a bucket and back. Sharded, of each weight: what is gathered is copied twice into its
    place, its gradient once out of it, for every micro-batch.
    """
    from danlu.train import memory

    weights = sum(p.numel() for p in net.parameters())
    update = weights * memory.held(net, plan) * (24.0 + 2 * memory.state(plan))
    if plan.ranks == 1 or plan.parallel == "tensor":
        return update
    if plan.parallel == "fsdp":
        return update + plan.accumulate * weights * (4.0 * _WEIGHT[plan.precision] + 2 * _GRADIENT)
    return update + weights * 4.0 * _GRADIENT


def _shown(need: Need, cluster: Cluster) -> dict[str, str]:
    """Each figure in words, in the order of the table."""
    room = cluster.memory_gb * 1e9
    fits = text("cluster.fits" if need.memory <= room else "cluster.too_small")
    return {
        "devices": f"{need.devices:,} ({need.parallel})",
        "parameters": f"{need.parameters / 1e6:,.1f} M",
        "memory": f"{need.memory / 1e9:,.2f} / {cluster.memory_gb:g} GB · {fits}",
        "step": f"{need.step:.4g} s ({need.computing:.3g} + {need.moving:.3g} + {need.passing:.3g})",
        "speed": f"{need.tokens / need.step:,.0f}",
        "time": f"{need.steps * need.step / (1 - need.lost) / 3600:,.2f} h" if need.lost < 1 else "∞",
        "checkpoint": f"{need.checkpoint / 1e9:,.2f} GB / {need.checkpoint_here / 1e9:,.2f} GB",
        "writing": f"{need.writing:,.2f} s",
        "failure": f"{need.failure / 3600:,.1f} h",
        "interval": f"{need.interval / 60:,.1f} min ({max(1, round(need.interval / need.step)):,})",
        "lost": f"{need.lost:.2%}",
    }
