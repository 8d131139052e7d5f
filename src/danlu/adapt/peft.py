"""Adapters in a folder as the library peft writes and reads them: adapter_config.json, adapter_model.safetensors.

Shapes: I inputs · O outputs · R rank · P prefix · L layers · K key/value heads · E head_dim
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danlu import files, models
from danlu.adapt.bottleneck import Narrowed
from danlu.adapt.dora import Directed
from danlu.adapt.graft import GROWN, graft, stacks
from danlu.adapt.lora import LowRank
from danlu.adapt.prefix import Prefixed
from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.models.architecture import Architecture
from danlu.models.foreign import template
from danlu.models.layout import Layout
from danlu.nn.heads import LabelConfig
from danlu.nn.network import Network
from danlu.nn.positions import Rotary, magnitude, rotate, rotation
from danlu.nn.transformer import Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_ROOT = "base_model.model."
_LORA = {"lora_down": "lora_A.weight", "lora_up": "lora_B.weight", "lora_magnitude": "lora_magnitude_vector"}
_TASKS = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ForSequenceClassification": "SEQ_CLS",
          "ForTokenClassification": "TOKEN_CLS", "ForQuestionAnswering": "QUESTION_ANS",
          "ForConditionalGeneration": "SEQ_2_SEQ_LM", "MTModel": "SEQ_2_SEQ_LM"}  # fmt: skip


@dataclass(frozen=True)
class Names:
    """Where the linears of a network stand in a stock class."""

    layout: Layout
    architecture: Architecture

    @classmethod
    def of(cls, architecture: Architecture) -> Names:
        """Raises UserError E309 where no stock class carries the architecture."""
        name = models.carrier(architecture)
        if name is None:
            raise UserError("E309")
        return cls(models.family(name).LAYOUT, architecture)

    @property
    def fused(self) -> bool:
        return any(".inner.qkv." in name for name in self.layout.names)

    def ours(self, network: Network) -> dict[str, list[str]]:
        """{theirs: ours} of all linears of the blocks; a fused one is three of ours."""
        linears = [name for name, part in network.named_modules() if ".inner." in name and not name.endswith("_norm")]
        marks = {
            f"{name}.weight": torch.empty(0, 0) for name in linears if hasattr(network.get_submodule(name), "bias")
        }
        moved = {id(mark): name for name, mark in self.layout.to_theirs(dict(marks)).items()}
        found: dict[str, list[str]] = {}
        for name, mark in marks.items():
            whole = re.sub(r"\.[qkv]\.weight$", ".qkv.weight", name) if self.fused else name
            found.setdefault(self._stock(moved.get(id(mark), whole)), []).append(name.removesuffix(".weight"))
        return found

    def _stock(self, name: str) -> str:
        """Their linear whose weight has this name in between."""
        general, number = template(name)
        theirs = self.layout.names[general].removesuffix(".weight").replace("{n}", number)
        bare = isinstance(self.architecture.head, LabelConfig) and not self.architecture.head.count
        return theirs.removeprefix(self.layout.prefix) if bare else theirs

    @property
    def stock(self) -> str:
        form = self.layout.form_of(self.architecture.head)
        assert form is not None
        return form.stock


# --- writing -----------------------------------------------------------------------------------------


def save(network: Network, architecture: Architecture, folder: Path, base: str) -> None:
    """Write what was added to `base` (a path or a name), and all else that was trained: LoRA, DoRA or a prefix.

    Raises:
        UserError: E331, peft has no form for these adapters.
    """
    names = Names.of(architecture)
    config, tensors = (_low_rank if kind_of(network) is LowRank else _prefix)(network, names)
    task = next((task for end, task in _TASKS.items() if names.stock.endswith(end)), None)
    shared = {"base_model_name_or_path": base, "task_type": task, "inference_mode": True, "revision": None}
    folder.mkdir(parents=True, exist_ok=True)
    files.write_tensors(folder / WEIGHTS, {name: _wide(tensor) for name, tensor in tensors.items()})
    files.write_json(folder / CONFIG, shared | config)


def kind_of(network: Network) -> type[Any]:
    """LowRank or Prefixed. Raises UserError E331 where peft has no form for what was added, or that is nothing."""
    kinds = {kind for part in network.modules() for kind in (LowRank, Prefixed, Narrowed) if isinstance(part, kind)}
    if kinds not in ({LowRank}, {Prefixed}):
        raise UserError("E331", reason=", ".join(sorted(kind.__name__ for kind in kinds)) or "none")
    return kinds.pop()


def _wide(tensor: Tensor) -> Tensor:
    """At least fp32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()


def _low_rank(network: Network, names: Names) -> tuple[dict[str, Any], dict[str, Tensor]]:
    layers: dict[str, Any] = {name: part for name, part in network.named_modules() if isinstance(part, LowRank)}
    merged = {theirs: [name for name in ours if name in layers] for theirs, ours in names.ours(network).items()}
    tensors: dict[str, Tensor] = {}
    ranks, alphas = dict[str, int](), dict[str, float]()
    for theirs, ours in merged.items():
        if ours:
            parts = {name: layers[name] for name in ours}
            made = _joined(network, theirs, names, parts)
            tensors |= {f"{_ROOT}{theirs}.{_LORA[name]}": tensor for name, tensor in made.items()}
            ranks[theirs] = len(made["lora_down"])
            alphas[theirs] = next(iter(parts.values())).scale * ranks[theirs]
    trained = _trained(network, names)
    heads = sorted({name.rpartition(".")[0] for name in trained})
    usual, alpha = min(ranks.values()), min(alphas.values())
    return {
        "peft_type": "LORA", "r": usual, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none",
        "rank_pattern": {re.escape(name): rank for name, rank in ranks.items() if rank != usual},
        "alpha_pattern": {re.escape(name): each for name, each in alphas.items() if each != alpha},
        "target_modules": sorted(ranks), "modules_to_save": heads or None, "fan_in_fan_out": names.fused,
        "use_dora": any(isinstance(part, Directed) for part in layers.values()), "use_rslora": False,
    }, tensors | {_ROOT + name: tensor for name, tensor in trained.items()}  # fmt: skip


def _joined(network: Network, theirs: str, names: Names, parts: Mapping[str, Any]) -> dict[str, Tensor]:
    """The adapters of one of their linears; where q, k and v are one, theirs side by side in a greater rank."""
    alone = {name: tensor.detach() for name, tensor in _grown(next(iter(parts.values()))).items()}
    if not names.fused or not theirs.endswith("c_attn"):
        return alone
    whole = names.ours(network)[theirs]
    zero = {name: torch.zeros_like(tensor) for name, tensor in alone.items()}
    each = [_grown(parts[name]) if name in parts else zero for name in whole]
    if "lora_magnitude" in alone and len(parts) < len(whole):
        raise UserError("E331", reason="DoRA of one of q, k, v alone")
    kept = [own for own, name in zip(each, whole, strict=True) if name in parts]
    ups = [own["lora_up"].detach() for own in each]
    columns = [torch.cat([up if place == at else torch.zeros_like(up) for place, up in enumerate(ups)])
               for at, name in enumerate(whole) if name in parts]  # fmt: skip
    made = {"lora_down": torch.cat([own["lora_down"].detach() for own in kept]), "lora_up": torch.cat(columns, 1)}
    if "lora_magnitude" in alone:
        made["lora_magnitude"] = torch.cat([own["lora_magnitude"].detach() for own in kept])
    return made


def _grown(layer: Any) -> dict[str, Tensor]:
    return {name: p for name, p in layer.named_parameters(recurse=False) if name in _LORA}


def _trained(network: Network, names: Names) -> dict[str, Tensor]:
    """What learned of the network itself, under their names: a head."""
    own = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    own = {name: p for name, p in own.items() if not name.rpartition(".")[2].startswith(GROWN)}
    return names.layout.export_weights(own, names.architecture.head)


def _prefix(network: Network, names: Names) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Their text begins at position P, ours at 0: keys that are turned are turned on by P; tables cannot be."""
    core = network.core
    if not isinstance(core.config.position, Rotary) or len(stacks(network)) > 1:
        raise UserError("E331", reason="a prefix where positions are not rotary: peft moves those of the text")
    if trained := _trained(network, names):
        raise UserError("E331", reason=f"a prefix and {', '.join(sorted(trained))}")
    layers: list[Any] = [block.attention.inner for block in core.blocks]
    pairs = [(_turned(core, n, part.prefix_keys, 1), part.prefix_values) for n, part in enumerate(layers)]
    stacked = torch.stack([tensor.detach() for pair in pairs for tensor in pair])  # (2 L, K, P, E)
    tokens, heads, width = stacked.shape[2], stacked.shape[1], stacked.shape[1] * stacked.shape[3]
    return {
        "peft_type": "PREFIX_TUNING", "num_virtual_tokens": tokens, "token_dim": width, "num_attention_heads": heads,
        "num_layers": len(pairs), "num_transformer_submodules": 1, "encoder_hidden_size": width,
        "prefix_projection": False,
    }, {"prompt_embeddings": stacked.permute(2, 0, 1, 3).reshape(tokens, -1)}  # fmt: skip


def _turned(core: Transformer, layer: int, keys: Tensor, way: int) -> Tensor:
    """Keys (K, P, E) turned by P places forth (1) or back (-1)."""
    window, position = core.config.windows[layer], core.config.position
    assert isinstance(position, Rotary)
    by = torch.full((1, keys.shape[1]), way * keys.shape[1])
    turn = rotation(core._frequencies[window].cpu(), by, magnitude(position, window > 0), torch.float64)
    return rotate(keys.detach().double().transpose(0, 1)[None], turn)[0].to(keys.dtype)


# --- reading -----------------------------------------------------------------------------------------


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config of a folder and its tensors.

    Raises:
        UserError: E301, a file is missing or damaged; E330, a kind of adapter that danlu does not read.
    """
    try:
        config = files.read_json(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise UserError("E301", path=folder / CONFIG, reason=because(error)) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in ("LORA", "PREFIX_TUNING"):
        raise UserError("E330", path=folder / CONFIG, reason=f"peft_type = {kind!r}")
    return config, files.read_tensors(folder / WEIGHTS)


def load(network: Network, architecture: Architecture, folder: Path) -> Network:
    """Put a folder's adapters into a network, in place; what else it holds (a head) takes the place of what is there.

    Raises:
        UserError: E301; E330, something in it has no place.
    """
    config, tensors = read(folder)
    names = Names.of(architecture)
    if config["peft_type"] == "PREFIX_TUNING":
        return _load_prefix(network, config, tensors, folder)
    rest = dict(_load_low_rank(network, config, tensors, names, folder))
    state = network.state_dict()
    for name, tensor in names.layout.import_weights(rest, architecture.head).items():
        if name not in state or state[name].shape != tensor.shape:
            raise UserError("E330", path=folder / WEIGHTS, reason=name)
        with torch.no_grad():
            state[name].copy_(tensor)
    return network


def _load_low_rank(
    network: Network, config: Mapping[str, Any], tensors: Mapping[str, Tensor], names: Names, folder: Path
) -> Iterator[tuple[str, Tensor]]:
    """Graft every pair of thin matrices; the tensors that are none, by their names without peft's."""
    ours, found = names.ours(network), _by_layer(tensors)
    for theirs, own in found.items():
        if theirs not in ours or not {"lora_down", "lora_up"} <= set(own):
            raise UserError("E330", path=folder / WEIGHTS, reason=theirs)
        scale = _scale(config, theirs, len(own["lora_down"]))
        parts = {name: tensor.chunk(len(ours[theirs])) for name, tensor in own.items() if name != "lora_down"}
        for place, name in enumerate(ours[theirs]):
            _grow(network, name, scale, {n: part[place] for n, part in parts.items()} | {"lora_down": own["lora_down"]})
    lora = tuple(f".{leaf}" for leaf in _LORA.values())
    yield from ((n.removeprefix(_ROOT), tensor) for n, tensor in tensors.items() if not n.endswith(lora))


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{their layer: {our name of a part: tensor}}."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for part, leaf in _LORA.items():
            if name.endswith(f".{leaf}"):
                found.setdefault(name.removeprefix(_ROOT).removesuffix(f".{leaf}"), {})[part] = tensor
    return found


def _grow(network: Network, name: str, scale: float, own: Mapping[str, Tensor]) -> None:
    parent, _, leaf = name.rpartition(".")
    module = network.get_submodule(parent)
    kind = Directed if "lora_magnitude" in own else LowRank
    made = graft(kind, getattr(module, leaf))
    made.scale = scale
    like = next(network.parameters())
    for part, tensor in own.items():
        setattr(made, part, torch.nn.Parameter(tensor.to(like.device, like.dtype).contiguous()))
    setattr(module, leaf, made)


def _scale(config: Mapping[str, Any], theirs: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) (2312.03732), with what stands for this layer alone."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    own = [value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", theirs)]
    alpha = float(own[0] if own else config["lora_alpha"])
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _load_prefix(network: Network, config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> Network:
    core = network.core
    heads, width = core.config.kv_heads, core.config.kv_heads * core.config.head_dim
    table = tensors.get("prompt_embeddings")
    if table is None or table.shape[1:] != (2 * core.config.layers * width,) or len(tensors) > 1:
        raise UserError("E330", path=folder / WEIGHTS, reason=", ".join(sorted(tensors)))
    if not isinstance(core.config.position, Rotary) or len(stacks(network)) > 1:
        raise UserError("E330", path=folder / CONFIG, reason="a prefix where positions are not rotary")
    pairs = table.view(len(table), -1, heads, core.config.head_dim).permute(1, 2, 0, 3)  # (2 L, K, P, E)
    like = next(network.parameters())
    for n, block in enumerate(core.blocks):
        part: Any = block.attention
        keys, values = (pairs[2 * n + at].to(like.device, like.dtype).contiguous() for at in range(2))
        part.inner = graft(Prefixed, part.inner).grow(_turned(core, n, keys, -1), values)
    return network
