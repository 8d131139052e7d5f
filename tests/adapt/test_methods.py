"""Every way of tuning, for networks that speak and networks that label: what begins, what learns, what is kept."""

from __future__ import annotations

import copy

import pytest
import torch

from danlu import adapt
from danlu.adapt import nf4
from danlu.adapt.bottleneck import Narrowed
from danlu.adapt.fold import merge, merged_state, staying
from danlu.adapt.graft import graft
from danlu.adapt.lora import LowRank
from danlu.adapt.quantize import quantize
from danlu.errors import UserError
from danlu.nn.attention import View
from danlu.nn.cache import Cache
from danlu.nn.generate import Sampling, generate
from tests.adapt.forms import CONTEXT, FORMS, METHODS, batch, logits, network, trained, tuned

UNCHANGED = ("full", "head", "last-1", "lora", "dora", "adapter", "bitfit")  # at first
FOLDED = ("lora", "dora", "qlora")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tune", METHODS)
def test_only_what_is_trained_gets_a_gradient_and_the_head_of_a_new_task_always(tune: str, form: str) -> None:
    net = adapt.apply(network(form).train(), adapt.short(tune), 1)
    net(batch()).square().sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == trained(net)
    head = {f"head.{name}" for name, _ in net.head.named_parameters()}
    assert trained(net) - head or tune == "head"
    if form.endswith("labels"):
        assert head
        assert head <= trained(net)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tune", UNCHANGED)
def test_it_begins_as_the_network_it_is_given(tune: str, form: str) -> None:
    plain = network(form)
    assert torch.allclose(logits(adapt.apply(network(form), adapt.short(tune), 0)), logits(plain), atol=1e-6)
    assert (logits(tuned(form, tune)) - logits(plain)).abs().max() > 0.05


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tune", FOLDED)
def test_it_folds_into_plain_weights_with_the_same_logits(tune: str, form: str) -> None:
    net = tuned(form, tune).double()
    expected, plain = logits(net), network(form).double()
    plain.load_state_dict(merged_state(net, net.state_dict()))
    assert (logits(plain) - expected).abs().max() <= 1e-8 * expected.abs().max()
    assert merge(net) is net
    assert (logits(net) - expected).abs().max() <= 1e-8 * expected.abs().max()
    assert set(net.state_dict()) == set(network(form).state_dict())
    assert not any(isinstance(part, LowRank | nf4.Nf4Linear) for part in net.modules())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tune", METHODS)
def test_what_stays_is_named_so_that_the_network_can_be_made_again(tune: str, form: str) -> None:
    net = tuned(form, tune)
    entries = staying(net).get("adapters", [])
    assert [entry["kind"] for entry in entries] == {"prefix": ["prefix"], "adapter": ["bottleneck"]}.get(tune, [])
    again = adapt.apply(network(form, seed=5), entries, 9).eval()
    again.load_state_dict(merged_state(net, net.state_dict()))
    assert torch.allclose(logits(again), logits(net), atol=2e-5)


@pytest.mark.parametrize("form", ["gpt", "gpt2"])
@pytest.mark.parametrize("tune", METHODS)
@torch.no_grad()
def test_token_by_token_is_all_at_once(tune: str, form: str) -> None:
    """With a cache, whose slots are at different lengths, as the serving engine works."""
    net = tuned(form, tune).double()
    ids = batch()["input_ids"]
    whole = net({"input_ids": ids})
    cache = Cache(net.core.config, 2, CONTEXT, torch.float64)
    first = net({"input_ids": ids[:1, :7], "slots": torch.tensor([1])}, cache)
    assert (first - whole[:1, :7]).abs().max() < 1e-9
    for at in range(7, 20):
        slots, positions = torch.tensor([0, 1]), torch.tensor([[at - 7], [at]])
        step = net({"input_ids": ids[[1, 0], [at - 7, at]][:, None], "slots": slots, "position_ids": positions}, cache)
        assert (step[0, 0] - whole[1, at - 7]).abs().max() < 1e-9
        assert (step[1, 0] - whole[0, at]).abs().max() < 1e-9
    net = net.float()
    assert len(list(generate(net, [1, 2, 3], Sampling(max_tokens=5), end_ids=()))) == 5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tune", ["prefix", "adapter"])
def test_packed_texts_do_not_see_each_other_under_it(tune: str, form: str) -> None:
    net, ids = tuned(form, tune).double(), batch()["input_ids"][:1]
    packed = {"input_ids": ids, "segment_ids": torch.tensor([[1] * 8 + [2] * 12])}
    with torch.no_grad():
        apart = [net({"input_ids": part}).squeeze(0) for part in ids.split([8, 12], 1)]
        together = net(packed).squeeze(0)
    apart = [each.unsqueeze(0) if each.ndim < together.ndim else each for each in apart]
    assert (together - torch.cat(apart)).abs().max() < 1e-9


@pytest.mark.parametrize("tune", METHODS)
def test_in_8_bits_it_stays_close(tune: str) -> None:
    net = tuned("gpt labels", tune)
    small = quantize(copy.deepcopy(net))
    assert float((logits(small).float() - logits(net)).norm() / logits(net).norm()) < 0.1


def test_two_adapters_on_one_layer_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        adapt.apply(network("gpt"), [{"kind": "lora"}, {"kind": "dora"}], 0)
    assert caught.value.code == "E120"
    net = adapt.apply(network("gpt"), [{"kind": "prefix"}, {"kind": "lora"}], 0)
    assert {name.rpartition(".")[2] for name in trained(net)} == {
        "prefix_keys", "prefix_values", "lora_down", "lora_up"}  # fmt: skip


def test_a_grafted_layer_is_still_what_it_was() -> None:
    layer = network("gpt").core.blocks[0].mlp.inner.down
    assert isinstance(graft(Narrowed, layer), type(layer) | Narrowed)
    assert graft(Narrowed, layer).weight is layer.weight


# --- bottlenecks and biases, written out ---


def test_a_bottleneck_is_what_the_paper_says() -> None:
    """h + up(gelu(down h + b)) + b' behind the projection of a sub-layer, before the sum."""
    net, x = tuned("bert", "adapter").double(), torch.randn(2, 5, 64, generator=torch.Generator(), dtype=torch.float64)
    block = net.core.blocks[0]
    layer, plain = block.mlp.inner.down, network("bert").double().core.blocks[0].mlp.inner
    h = plain(x)
    narrow = torch.nn.functional.gelu(h @ layer.adapter_down.T + layer.adapter_down_bias)
    expected = h + narrow @ layer.adapter_up.T + layer.adapter_up_bias
    assert torch.allclose(block.mlp.inner(x), expected, rtol=0, atol=1e-10)
    assert {name.split(".")[-1] for name in trained(net)} == {
        "weight", "bias", "adapter_down", "adapter_down_bias", "adapter_up", "adapter_up_bias"}  # fmt: skip
    assert not [name for name in trained(net) if name.endswith("weight") and ".norm" not in name]
    sizes = [p.numel() for name, p in net.named_parameters() if "adapter_" in name]
    assert sum(sizes) == 2 * 2 * (2 * 64 * 64 + 64 + 64)  # layers · sub-layers · (2 m d + d + m), section 2.1


def test_a_prefix_is_what_the_paper_says() -> None:
    """softmax over the prefix and the text together, in a form that sees both ways, for which peft has none."""
    net = tuned("bert", "prefix").double()
    part = net.core.blocks[0].attention.inner
    x = torch.randn(1, 5, 64, generator=torch.Generator(), dtype=torch.float64)
    heads = [layer(x).view(5, 4, 16).transpose(0, 1) for layer in (part.q, part.k, part.v)]
    k, v = torch.cat([part.prefix_keys, heads[1]], 1), torch.cat([part.prefix_values, heads[2]], 1)
    mixed = torch.softmax(heads[0] @ k.mT / 4, -1) @ v
    assert k.shape == (4, 16 + 5, 16)
    assert torch.allclose(part(x, View("sdpa")), part.o(mixed.transpose(0, 1).reshape(1, 5, 64)), rtol=0, atol=1e-10)


def test_biases_alone() -> None:
    assert all(name.endswith("bias") for name in trained(adapt.apply(network("bert"), adapt.short("bitfit"), 0)))
    plain = {name for name, _ in network("gpt2").named_parameters() if name.endswith("bias")}
    assert trained(adapt.apply(network("gpt2"), adapt.short("bitfit"), 0)) == plain
    assert all("norm" in name for name in trained(adapt.apply(network("gpt"), adapt.short("bitfit"), 0)))


# --- 4 bits ---

PAPER = (  # 2305.14314, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def test_the_levels_are_the_papers_table() -> None:
    assert nf4.levels() == pytest.approx(PAPER, abs=2e-7)  # printed from fp32


def test_codes_are_the_nearest_levels_and_what_they_stand_for_is_scaled() -> None:
    weight = torch.randn(7, 50, generator=torch.Generator().manual_seed(1))
    codes, scales = nf4.encoded(weight)
    found, flat, at = nf4.decoded(codes, scales, weight.shape, torch.float32).flatten(), weight.flatten(), 0
    for block in flat.split(64):
        top = block.abs().max()
        nearest = [min(PAPER, key=lambda level: abs(level - float(value / top))) * float(top) for value in block]
        assert found[at : at + len(block)].tolist() == pytest.approx(nearest, abs=1e-6)
        at += len(block)
    assert len(codes) == -(-350 // 64) * 32


def test_it_is_smaller_and_near_and_scales_take_a_byte() -> None:
    layer = torch.nn.Linear(256, 512)
    layer.weight.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    once, twice = nf4.Nf4Linear(layer, double=False), nf4.Nf4Linear(layer, double=True)
    bits = [8 * sum(b.numel() * b.element_size() for b in made.buffers()) / 512 / 256 for made in (once, twice)]
    assert bits == pytest.approx([4.5, 4.127], abs=0.005)  # the paper: 0.5 and 0.127 bits a weight for the constants
    errors = [
        float((made.weight - layer.weight).detach().norm() / layer.weight.detach().norm()) for made in (once, twice)
    ]
    assert errors[0] == pytest.approx(0.0912, abs=0.003)  # of normal weights in blocks of 64
    assert abs(errors[1] - errors[0]) < 0.003
    zeros = torch.nn.Linear(64, 3)
    zeros.weight.data.zero_()
    assert not nf4.Nf4Linear(zeros, double=False).weight.any()


def test_4_bits_pass_gradients_and_keep_no_wide_weight() -> None:
    layer = nf4.Nf4Linear(torch.nn.Linear(32, 16), double=True)
    x = torch.randn(3, 32, generator=torch.Generator(), requires_grad=True)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.shape), t)[1], lambda t: t):
        y = layer(x)
    y.square().sum().backward()
    assert torch.allclose(x.grad, 2 * y.detach() @ layer.weight, atol=1e-5)
    assert torch.Size([16, 32]) not in kept
