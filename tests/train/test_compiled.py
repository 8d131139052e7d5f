"""What a really compiled block computes: the same gradients, and one program for all layers of one form."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from danlu.data.loader import Loader
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn import transformer
from danlu.train import compiling
from tests.train import tiny
from tests.train.tiny import CONTEXT, VOCAB


@pytest.mark.skipif(not compiling.available("cpu"), reason="there is no C++ compiler on this machine")
@pytest.mark.slow
@pytest.mark.timeout(900)  # the compiler is a process of its own for every kernel, slow on a busy machine
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_compiled_blocks_give_the_same_gradients(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that layers of one form share a program: one for all three, not three."""
    torch._dynamo.reset()
    shape = qwen3.preset(VOCAB, CONTEXT, 3, width=16, heads=2, head_dim=8, hidden=32)
    net = build(shape, torch.Generator().manual_seed(3)).train()
    batch, task = loader.assemble(list(range(len(loader)))), tiny.training().task
    counter = CompileCounterWithBackend("inductor")
    program = torch.compile(transformer.program.__wrapped__.__globals__["_forward"], dynamic=False, backend=counter)
    monkeypatch.setattr(transformer, "program", lambda: program)
    found = []
    for on in (False, True):
        made = copy.deepcopy(net)
        compiling.switch(made, on)
        task.loss(made, batch)["loss"].backward()
        found.append({name: p.grad for name, p in made.named_parameters()})
    eager, compiled = found
    assert counter.frame_count, "nothing was compiled"
    for name, gradient in eager.items():
        assert gradient is not None
        assert torch.allclose(compiled[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())), name
    assert counter.frame_count == 1, "every layer was compiled anew"
