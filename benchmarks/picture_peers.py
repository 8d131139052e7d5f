"""Training on pictures in plain torch, as its users write it: what pictures.py sets danlu beside.

Shapes: B pictures · C channels · H pixels on each side
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

CLASSES, SIDE, CROP = 10, 32, 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10
GROUPS = 8
Model = tuple[nn.Module, Callable[[Tensor], Tensor]]  # and how it is asked for logits
Peer = Callable[[], Model]


# --- ResNet-18 for small pictures (1512.03385): a stem of one 3 x 3 convolution, four stages of two blocks -------


class Standardized(nn.Conv2d):
    """Each filter with mean 0 and variance 1 (1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, len(self.weight), -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0).view_as(self.weight)
        return self._conv_forward(x, weight, self.bias)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))."""

    def __init__(
        self, conv: type[nn.Conv2d], norm: Callable[[int], nn.Module], inputs: int, outputs: int, stride: int
    ) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = conv(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)  # type: ignore[no-any-return]


def resnet18(kind: str) -> Model:
    """With the norm of the batch, or one over groups of channels and standardized filters."""
    conv = nn.Conv2d if kind == "batch" else Standardized
    norm: Any = nn.BatchNorm2d if kind == "batch" else (lambda channels: nn.GroupNorm(GROUPS, channels))
    layers = [conv(3, 64, 3, 1, 1, bias=False), norm(64), nn.ReLU(inplace=True)]
    before = 64
    for stage in range(4):
        for place in range(2):
            width = 64 * 2**stage
            layers.append(BasicBlock(conv, norm, before, width, 2 if stage and not place else 1))
            before = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))
    return net, net


# --- ViT-tiny ----------------------------------------------------------------------------------------


def vit_tiny() -> Model:
    """transformers' own, with patches of 4 pixels."""
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    net = ViTForImageClassification(ViTConfig(image_size=SIDE, patch_size=4, num_labels=CLASSES, **sizes))
    return net, lambda pixels: net(pixel_values=pixels).logits


# --- rows --------------------------------------------------------------------------------------------


class Files(Dataset[tuple[Tensor, int]]):
    """Pictures in folders of their classes, decoded each time they are asked for; moved and turned to learn from."""

    def __init__(self, folder: Path, learning: bool) -> None:
        self.kinds = sorted(path.name for path in folder.iterdir())
        self.paths = sorted(folder.glob("*/*.jpg"))
        self.learning = learning
        self.mean, self.std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import numpy as np
        from PIL import Image

        path = self.paths[index]
        with Image.open(path) as image:
            array = np.asarray(image.convert("RGB"))
        if self.learning:
            array = np.pad(array, ((CROP, CROP), (CROP, CROP), (0, 0)))
            top, left = torch.randint(2 * CROP + 1, (2,)).tolist()
            array = array[top : top + SIDE, left : left + SIDE]
            array = array[:, ::-1] if torch.rand(()) < 0.5 else array
        pixels = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))).float() / 255
        return (pixels - self.mean) / self.std, self.kinds.index(path.parent.name)


# --- the loop ----------------------------------------------------------------------------------------


def train(made: Peer, options: argparse.Namespace) -> None:
    """Train, measure on the test rows, and write figures.json into this folder."""
    torch.manual_seed(1)  # noqa: TID251  as users write it
    net, ask = made()
    form = torch.contiguous_format if options.defaults else torch.channels_last
    net = net.to(memory_format=form)  # type: ignore[call-overload]
    lowered = options.precision == "bf16"
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    rows = DataLoader(Files(options.rows_in / "train", True), options.batch, shuffle=True, drop_last=True, **workers)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    total = max(1, options.epochs * len(rows))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=total)
    steps, waited = list[float](), 0.0
    begun = time.perf_counter()
    for _ in range(options.epochs):
        for pixels, labels in rows:
            waited += time.perf_counter() - begun
            pixels = pixels.to(memory_format=form)
            with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
                loss = F.cross_entropy(ask(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()
            steps.append(time.perf_counter() - begun)
            if len(steps) == 1:
                Path("first-step").write_text("1")
            begun = time.perf_counter()
    accuracy = reached(net, ask, options, form)
    figures = {"step_seconds": steps, "waiting": round(waited / sum(steps), 4), "accuracy": accuracy}
    Path("figures.json").write_text(json.dumps(figures))


@torch.no_grad()
def reached(net: nn.Module, ask: Callable[[Tensor], Tensor], options: argparse.Namespace, form: Any) -> float:
    """The share of the test rows whose class is found."""
    net.eval()
    rows = DataLoader(Files(options.rows_in / "test", False), 2 * options.batch, num_workers=options.workers)
    right = 0
    for pixels, labels in rows:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            found = ask(pixels.to(memory_format=form)).argmax(-1)
        right += int((found == labels).sum())
    return right / len(rows.dataset)  # type: ignore[arg-type]


# --- what is compared --------------------------------------------------------------------------------


def counted(net: nn.Module, ask: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Weights, and operations of a forward pass over one picture as torch counts them: all but those of attention
    itself, which is one kernel."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ask(torch.zeros(1, 3, SIDE, SIDE))
    return {"weights": sum(p.numel() for p in net.parameters()), "flops": counter.get_total_flops()}
