"""What one Transformer stack is, by value: no booleans, no flags that combine."""

from __future__ import annotations

from dataclasses import dataclass

from danlu.nn import mlp
from danlu.nn.positions import SCALINGS, Buckets, Rotary

CHOICES = {
    "mlp": mlp.KINDS,
    "norm": ("layer", "rms", "rms1"),
    "placement": ("pre", "post", "sandwich"),
    "bias": ("none", "qkv", "all"),
    "qk_norm": ("none", "head"),
    "mask": ("causal", "full"),
}
_ROTARY = Rotary()


@dataclass(frozen=True)
class TransformerConfig:
    """One stack; an encoder-decoder is two of them, the second with a `memory`."""

    dim: int
    layers: int
    heads: int  # 0: no attention, each place for itself (an MLP with residual connections)
    kv_heads: int  # = heads, or a divisor of it (grouped-query attention, 2305.13245)
    head_dim: int
    hidden: int  # width inside the MLP
    mlp: str = "swiglu"  # gelu gelu_tanh quick_gelu relu relu2 silu | swiglu geglu geglu_tanh reglu
    norm: str = "rms"  # layer | rms | rms1 (weight stored minus 1)
    norm_eps: float = 1e-6
    placement: str = "pre"  # pre | post | sandwich (before and after); a final norm follows unless post
    bias: str = "none"  # none | qkv | all
    qk_norm: str = "none"  # none | head (per head, before rotary)
    position: Rotary | Buckets | None = _ROTARY  # None: the embedding adds a table
    window: tuple[int, ...] = (0,)  # tokens that a layer looks back, cycled over the layers; 0 = all
    scale: float | None = None  # of the scores; None = head_dim ** -0.5
    mask: str = "causal"  # causal | full
    memory: int = 0  # width of the states attended to across; 0 = none
    dropout: float = 0.0  # of the embedding and of each sub-layer
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}")
        if isinstance(self.position, Rotary) and self.position.scaling not in SCALINGS:
            raise ValueError(f"position.scaling must be one of {', '.join(SCALINGS)}; got {self.position.scaling!r}")
        if self.heads and self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if isinstance(self.position, Rotary) and self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions; got {self.head_dim}")
        if not self.window:
            raise ValueError("window must not be empty; (0,) means that every layer sees all")

    @property
    def windows(self) -> tuple[int, ...]:
        """The window of each layer."""
        return tuple(self.window[layer % len(self.window)] for layer in range(self.layers))

    @property
    def score_scale(self) -> float:
        return self.head_dim**-0.5 if self.scale is None else self.scale
