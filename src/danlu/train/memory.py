"""How much memory a training takes, from what the code holds: weights, optimizer, activations, logits."""

from typing import TYPE_CHECKING, Any

from torch import nn

from danlu.device import CPU
from danlu.nn.config import TransformerConfig
from danlu.nn.losses import CHUNK_LOGITS, GPU_CHUNK_LOGITS
from danlu.nn.positions import Buckets

if TYPE_CHECKING:
    from danlu.train.plan import Plan

_WORKSPACES = 100e6  # bytes that the libraries of products keep on a GPU (cuBLAS: 32 MiB a stream on Hopper)
_PROCESS = 330e6  # bytes of a process that has loaded torch and its data
_SCATTERED = 1.4  # what one micro-batch frees is not all found again by the next (measured with glibc)
_SIZE = {"fp32": 4, "bf16": 2, "fp8": 2}  # bytes of what is computed with; fp8 is made of bf16 and let go again
_HOLES = 6.5  # times the weights of all blocks (measured with glibc on 4 ranks, fp32)
STATE = {"sgd": 4, "rmsprop": 4, "adam": 8, "adamw": 8, "muon": 8}  # bytes of optimizer state per weight, at most
_PASSING = {"sgd": 0, "rmsprop": 4, "adam": 4, "adamw": 4, "muon": 12}  # bytes per weight held during an update


def counted(net: nn.Module) -> tuple[int, int]:
    """How many weights are trained, and how many there are, those that are held as codes of a few bits included."""
    total = sum(p.numel() for p in net.parameters()) + sum(getattr(part, "coded", 0) for part in net.modules())
    return sum(p.numel() for p in net.parameters() if p.requires_grad), total


def shares(net: nn.Module, plan: "Plan") -> dict[str, float]:
    """Bytes of a training by purpose: process, weights, optimizer, activations."""
    weights = sum(p.numel() for p in net.parameters())
    coded = sum(b.numel() * b.element_size() for b in net.buffers())
    matrices = sum(p.numel() for p in net.parameters() if p.ndim >= 2)
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    lowered = matrices * 2 if _SIZE[plan.precision] == 2 else 0
    late = plan.parallel == "tensor"  # else the gradients of a micro-batch are let go one by one
    gradients = trained * (4 + (0 if not late else 2 if lowered else 4 if plan.accumulate > 1 else 0))
    kept = 0 if plan.device == CPU else trained * 8  # the best weights and those of the start, else in files (aside.py)
    part = held(net, plan)
    if plan.parallel == "fsdp":
        lowered, gradients = 0, trained * 8  # its masters are what is gathered from
    found = {
        "process": _WORKSPACES if plan.device.startswith("cuda") else _PROCESS,
        "weights": part * (weights * 4 + lowered + kept + gradients) + 2 * coded + _whole(net, plan),
        "optimizer": part * trained * state(plan),
        "activations": max(_activations(net, plan) + _loss(net, plan), part * trained * _PASSING[plan.optimizer]),
    }
    saving = max(part * _saving(weights, trained, plan), _holes(net, plan))  # a save finds room in what steps let go
    return found if plan.parallel == "ddp" else found | {"saving": saving}


def state(plan: "Plan") -> float:
    """Bytes per trained weight that a training keeps from step to step: of the optimizer, and of a running mean."""
    return STATE[plan.optimizer] + 4.0 * bool(plan.average)


def _saving(weights: int, trained: int, plan: "Plan") -> float:
    """A checkpoint written beside steps: a copy of what they change, and all of it twice as the bytes of a file."""
    changing = weights * 4.0 + trained * state(plan)
    return changing + 2 * (changing + weights * 4)


def _holes(net: nn.Module, plan: "Plan") -> float:
    """What gathered blocks leave behind on a processor: activations come to lie where a block was, and the next one,
    its copy and its gradients no longer fit there."""
    blocks = getattr(getattr(net, "core", None), "blocks", None)
    if plan.parallel != "fsdp" or plan.device != "cpu" or blocks is None:
        return 0.0
    return _HOLES * sum(p.numel() for p in blocks.parameters()) * _SIZE[plan.precision]


def held(net: nn.Module, plan: "Plan") -> float:
    """The share of the weights that one rank holds."""
    if plan.parallel == "ddp":
        return 1.0
    if plan.parallel == "fsdp":
        return 1 / plan.ranks
    core: Any = net.core
    blocks = sum(p.numel() for p in core.blocks.parameters() if p.ndim >= 2)
    return 1 - blocks * (1 - 1 / plan.ranks) / sum(p.numel() for p in net.parameters())


def _whole(net: nn.Module, plan: "Plan") -> float:
    """What ranks that share the weights hold whole: the network that they are shared out from, and what is gathered."""
    if plan.parallel == "ddp":
        return 0.0
    first = sum(p.numel() for p in net.parameters()) * 4.0
    return first + (_gathered(net, plan) if plan.parallel == "fsdp" else 0.0)


def _gathered(net: nn.Module, plan: "Plan") -> float:
    """What a sharded training holds whole: what is outside the blocks, two blocks, and gradients of one of each."""
    blocks = [sum(p.numel() for p in block.parameters()) for block in getattr(getattr(net, "core", None), "blocks", ())]
    outside, block = sum(p.numel() for p in net.parameters()) - sum(blocks), max(blocks, default=0)
    size = _SIZE[plan.precision]
    return float((outside + 2 * block) * size + (outside + block) * (size + 4))


def forecast(net: nn.Module, plan: "Plan") -> float:
    """Bytes that the process of a training will hold at its peak."""
    return sum(shares(net, plan).values())


def _activations(net: Any, plan: "Plan") -> float:
    """What the stacks keep of one micro-batch for its backward pass; 0 where the network holds no Transformer."""
    if getattr(getattr(net, "core", None), "config", None) is None:
        return 0.0
    kept = _kept(net.core.config, plan, plan.target or plan.context * getattr(net, "places", 1), plan.source)
    kept += float(plan.rows_here * plan.context * getattr(net, "kept", 0) * _SIZE[plan.precision])  # by convolutions
    if hasattr(net, "encoder"):
        kept += _kept(net.encoder.core.config, plan, plan.source or plan.context)
    return kept * (_SCATTERED if plan.accumulate > 1 else 1)


def _kept(config: TransformerConfig, plan: "Plan", length: int, remembered: int = 0) -> float:
    """What one stack keeps of rows of this length, which attend to a memory of so many tokens where it has one."""
    shared = plan.ranks if plan.parallel == "tensor" else 1  # heads and hidden columns
    size = _SIZE[plan.precision]
    width, inner, hidden = config.dim, config.heads * config.head_dim / shared, config.hidden / shared
    dropped = 4 * width if plan.dropout else 0  # two masks, and what they were applied to
    inner_kv = config.kv_heads * config.head_dim / shared
    per_row = length * (5 * width + 6 * inner + 3 * inner_kv + 4 * hidden + dropped)
    scores = length**2 if plan.attention == "written" or _learned(config) else 0
    if config.memory:
        per_row += length * (3 * width + 4 * inner + dropped / 2) + remembered * 4 * inner_kv
        scores += length * remembered if plan.attention == "written" else 0
    kept, layers = 0.0, config.layers
    if plan.checkpointing == "blocks":  # of each block what goes in, of the one at work all
        kept, layers = length * layers * width * size, 1
    kept += layers * per_row * size
    kept += (layers + 4) * config.heads / shared * scores * size  # of the layer at work they are held several times
    return plan.rows_here * kept


def _learned(config: TransformerConfig) -> bool:
    """Whether something is learned of the scores, for which they are kept."""
    return isinstance(config.position, Buckets)


def _loss(net: nn.Module, plan: "Plan") -> float:
    """The logits of a chunk, and the gradients of the head's weight and input while they are formed."""
    weight = getattr(getattr(net, "words", None) or getattr(net, "head", None), "weight", None)
    if weight is None or weight.ndim != 2:
        return 0.0
    vocab, width = weight.shape
    tokens, size = plan.rows_here * (plan.target or plan.context), _SIZE[plan.precision]
    if plan.device == "cpu":
        chunk = min(tokens, max(CHUNK_LOGITS // vocab, 64)) * vocab * size
    else:  # a whole chunk is widened at once
        chunk = min(tokens, max(GPU_CHUNK_LOGITS // vocab, 64)) * vocab * (size + 8)
    return float(chunk + vocab * width * (4 + size) + 2 * tokens * width * size)
