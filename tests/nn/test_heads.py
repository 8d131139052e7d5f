"""Heads: how many rows they multiply at a time."""

import pytest
import torch

from danlu.nn.heads import Label, LabelConfig


@pytest.mark.parametrize("hidden", ["none", "tanh"])
def test_few_sizes_are_multiplied_in_bf16_however_many_rows_have_a_label(
    hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new size costs tens of milliseconds and megabytes; no answer and no gradient knows of the rows added."""
    head = Label(LabelConfig(3, hidden=hidden), 16).bfloat16()
    exact = Label(LabelConfig(3, hidden=hidden), 16)
    exact.load_state_dict({name: tensor.float() for name, tensor in head.state_dict().items()})
    assert head.output is not None
    sizes, forward = set(), head.output.forward
    monkeypatch.setattr(head.output, "forward", lambda x: (sizes.add(len(x)), forward(x))[1])
    for count in (1, 31, 32, 33, 60, 64):
        states = torch.randn(count, 16, generator=torch.Generator().manual_seed(count)).bfloat16()
        logits, expected = head(states), exact(states.float())
        torch.testing.assert_close(logits.float(), expected, atol=0.03, rtol=0.03)
        for each, made in ((head, logits), (exact, expected)):
            each.zero_grad()
            made.float().square().sum().backward()
        for ours, theirs in zip(head.parameters(), exact.parameters(), strict=True):
            assert ours.grad is not None and theirs.grad is not None
            assert (ours.grad.float() - theirs.grad).norm() < 0.03 * theirs.grad.norm()
    assert sizes == {32, 64}
