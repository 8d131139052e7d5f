"""The recomputed worked examples: against central differences, torch, and the article's own operands."""

import numpy as np
import pytest
import torch

from danlu.learn import worked
from danlu.learn.worked import backward, drawing, forward, neuron


def test_the_forward_values_are_those_computed_on_paper() -> None:
    f = forward()
    assert f.z1.tolist() == f.a1.tolist() == [1.0, 1.0, 1.0]  # 0.5·1 - 0.5·0 + 0.5
    assert f.z2.tolist() == [1.0, 1.0]  # 0.5 - 0.5 + 0.5 + 0.5
    np.testing.assert_allclose(f.p, 0.7310585786, rtol=1e-10)
    assert f.loss == pytest.approx(0.5 * (0.2689414214**2 + 0.7310585786**2), rel=1e-9)


def test_every_gradient_is_torchs() -> None:
    weights = [torch.tensor(w, requires_grad=True) for w in (worked.W1, worked.B1, worked.W2, worked.B2)]
    w1, b1, w2, b2 = weights
    z1 = w1 @ torch.tensor(worked.X) + b1
    a1 = z1.relu()
    z2 = w2 @ a1 + b2
    p = z2.sigmoid()
    for each in (z1, a1, z2, p):
        each.retain_grad()
    (0.5 * ((p - torch.tensor(worked.Y)) ** 2).sum()).backward()
    ours = backward(forward())
    for name, theirs in {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "z1": z1, "a1": a1, "z2": z2, "p": p}.items():
        np.testing.assert_allclose(getattr(ours, name), theirs.grad.numpy(), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["w1", "b1", "w2", "b2"])
def test_every_gradient_is_a_central_difference(name: str) -> None:
    start = {"w1": worked.W1, "b1": worked.B1, "w2": worked.W2, "b2": worked.B2}
    ours, step = getattr(backward(forward()), name), 1e-6
    for at in np.ndindex(*start[name].shape):
        moved = [start[name].copy(), start[name].copy()]
        moved[0][at] -= step
        moved[1][at] += step
        low, high = (forward(**start | {name: each}).loss for each in moved)
        assert (high - low) / (2 * step) == pytest.approx(ours[at], abs=1e-9)


def test_a_step_downhill_lowers_the_loss() -> None:
    g = backward(forward())
    after = forward(w1=worked.W1 - g.w1, b1=worked.B1 - g.b1, w2=worked.W2 - g.w2, b2=worked.B2 - g.b2)
    assert after.loss < forward().loss


def test_one_neuron_has_half_the_gradient_that_the_article_gives() -> None:
    n = neuron()
    assert (n.z, n.p, n.loss, n.dp, n.dw.tolist(), n.db) == (1.0, 1.0, 0.5, 1.0, [1.0, 0.0], 1.0)


def test_eight_of_sixteen_lines_do_not_follow_from_their_own_numbers() -> None:
    lines = drawing()
    assert [line.number for line in lines if line.slip] == [2, 6, 10, 11, 12, 14, 15, 16]
    assert [line.right for line in lines] == [1, 0, 0.5, 0.5, 1, 0, 0.5, 0.5, 1, 0.5, 0.75, 0.25, 1, 0.5, 0.75, 0.25]


def test_the_kept_weights_are_the_drawings() -> None:
    drawn = {line.weight: line.operands[1] for line in drawing()}
    for j in range(3):
        assert [drawn[f"w{j + 1}{i + 1}"] for i in range(2)] == worked.W1[j].tolist()
    for j in range(2):
        assert [drawn[f"w{j + 5}{i + 1}"] for i in range(3)] == worked.W2[j].tolist()
