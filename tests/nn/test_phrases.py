"""Phrases of a text against torch's own convolutions, each text alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu import models
from danlu.models.architecture import build
from danlu.nn.network import Network

VOCAB, LENGTHS = 30, (3, 7, 1, 12)


def network(depth: int = 5, **sizes: int) -> Network:
    shape = models.preset("textcnn", VOCAB, 16, depth, width=6, hidden=4, **sizes)
    net, noise = build(shape, torch.Generator().manual_seed(1)).double().eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        net.embed.bias.normal_(0, 0.3, generator=noise)  # type: ignore[union-attr,operator]
    return net


def texts() -> list[Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.randint(1, VOCAB, (length,), generator=random) for length in LENGTHS]


def expected(net: Network, ids: Tensor) -> Tensor:
    """(T,) -> (1, C): embedding, convolutions with zeros around the text, the most of each channel, a linear layer."""
    embed, head = net.embed, net.head
    x = F.embedding(ids, embed.tokens.weight).T[None]  # type: ignore[union-attr]
    found = []
    for length, phrase in zip(embed.config.lengths, embed.phrases, strict=True):  # type: ignore[union-attr,arg-type]
        kernel = phrase.weight.unflatten(0, (length, -1)).permute(1, 2, 0) / length**0.5
        padded = F.pad(x, (length // 2, length - 1 - length // 2))
        found.append(F.conv1d(padded, kernel).amax(2))
    states = (torch.cat(found, 1) + embed.bias).relu()  # type: ignore[operator]
    return F.linear(states, head.output.weight, head.output.bias)  # type: ignore[union-attr]


def packed(rows: list[list[Tensor]]) -> dict[str, Tensor]:
    """Texts behind each other, told apart by their numbers; rows are padded with 0."""
    width = max(sum(map(len, row)) for row in rows)
    ids, numbers = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        joined = torch.cat(row)
        ids[place, : len(joined)] = joined
        numbers[place, : len(joined)] = torch.cat([torch.full((len(t),), n) for n, t in enumerate(row, 1)])
    return {"input_ids": ids, "segment_ids": numbers}


def test_texts_are_read_as_convolutions_read_them() -> None:
    for depth in (1, 2, 5, 6):
        net = network(depth)
        for ids in texts():
            torch.testing.assert_close(net({"input_ids": ids[None]}), expected(net, ids), rtol=0, atol=1e-12)


def test_texts_of_one_row_see_nothing_of_each_other() -> None:
    net, (one, two, three, four) = network(), texts()
    alone = torch.cat([expected(net, ids) for ids in (one, two, three, four)])
    together = net(packed([[one, two, three], [four]]))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    other = net(packed([[one, two, three], [four.flip(0)]]))
    torch.testing.assert_close(other[:2], alone[:2], rtol=0, atol=1e-12)
    assert (other[3] - alone[3]).abs().max() > 1e-3, "the order of words makes no difference"


def test_its_folder_gives_the_same_network() -> None:
    shape = models.preset("textcnn", VOCAB, 16, 3, width=6, hidden=4)
    family = models.family("textcnn")
    assert models.carrier(shape) == "textcnn" and shape.depth == 3
    assert family.from_hf(family.to_hf(shape, {})) == shape
