"""The forecast for a described cluster: its formulas against figures worked out by hand, and its limits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from danlu import cli
from danlu.cluster import Cluster, moved, need, needs, operations, traffic
from danlu.config import Train
from danlu.errors import UserError
from danlu.models import qwen3
from danlu.models.architecture import empty
from danlu.tasks.language_modeling import LanguageModeling
from danlu.train import loop
from danlu.train import plan as planning
from danlu.train.plan import Plan
from tests.conftest import ROOT
from tests.tiny_life import life, project
from tests.train import ranked, tiny
from tests.train.tiny import PLAN, Processor, loaders, opened

H100 = Cluster(devices=8, memory_gb=80.0, tflops=989.0, link_gb_s=450.0, network_gb_s=50.0, disk_gb_s=40.0)


def billion() -> tuple[object, Plan]:
    """A network of a thousand million weights and a plan of half a million tokens a step."""
    net = empty(qwen3.preset(50_000, 2048, 16, width=2048, heads=16, hidden=6144, head_dim=128))
    plan = replace(
        PLAN, depth=16, rows=256, accumulate=1, context=2048, optimizer="adamw", precision="bf16", steps=1000,
        device="cuda",
    )  # fmt: skip
    return net, replace(plan, step_gflop=planning.step_gflop(net, plan))


def small(parallel: str, ranks: int = 4, **keys: object) -> tuple[Any, Plan]:
    """One narrow layer, and a plan of three micro-batches."""
    keys = {"rows": 8, "accumulate": 3, "precision": "bf16", "optimizer": "adamw"} | keys
    return tiny.network(), replace(PLAN, ranks=ranks, parallel=parallel, **keys)  # type: ignore[arg-type]


def test_traffic_of_a_ring_of_shards_and_of_heads() -> None:
    net, plan = small("ddp")
    weights = sum(p.numel() for p in net.parameters())
    assert traffic(net, plan) == 2 * 3 / 4 * 4 * weights
    assert traffic(*small("fsdp")) == 3 * 3 / 4 * (2 * 2 + 4) * weights
    assert traffic(*small("ddp", ranks=1)) == 0
    activations = 3 * 8 * plan.context * 16  # of a step, one layer of width 16
    assert traffic(*small("tensor", ranks=2)) == 4 * (2 * 1 / 2) * activations * 2
    assert traffic(*small("tensor", ranks=2, precision="fp32")) == 4 * (2 * 1 / 2) * activations * 4


def test_traffic_by_heads_is_what_the_ranks_really_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks count the values of every sum of a forward and a backward pass."""
    from danlu.train import distributed

    def work() -> int:
        net, plan = small("tensor", ranks=2, rows=2, accumulate=1, precision="fp32", steps=1)
        task = LanguageModeling(Processor())  # type: ignore[arg-type]
        together = distributed.strategy(distributed.joined(task), task, "tensor")
        train = loop.Training(task, net, Train(), plan, 1, together)
        loader, sent, real = opened(tmp_path / "data")[0], [0], torch.ops._c10d_functional.all_reduce

        def counted(tensor: Tensor, *rest: object) -> Tensor:
            sent[0] += tensor.numel()
            return real(tensor, *rest)

        monkeypatch.setattr(torch.ops._c10d_functional, "all_reduce", counted)
        next(train.events(loader, None))
        return sent[0]

    loaders(tmp_path / "data")
    found = ranked.ranks(2, tmp_path / "ranks", work)
    net, plan = small("tensor", ranks=2, rows=2, accumulate=1, precision="fp32")
    assert found == [traffic(net, plan) / 4] * 2  # a sum over two sends as much as it sums


def test_operations_of_rows_and_of_heads() -> None:
    net, plan = small("ddp", rows=8, accumulate=1, step_gflop=8e-9)
    assert operations(net, plan) == 8 * 2 / 8  # two of eight rows
    assert operations(net, replace(plan, rows=9)) == 8 * 3 / 9  # one device has three of nine
    inside = sum(p.numel() for p in net.core.parameters() if p.ndim >= 2)
    outside = sum(p.numel() for p in net.parameters() if p.ndim >= 2) - inside
    net, plan = small("tensor", ranks=2, rows=8, accumulate=1)
    whole = 6.0 * (inside + outside) * 8 * plan.context
    found = operations(net, replace(plan, step_gflop=whole / 1e9))
    assert found == pytest.approx(6.0 * (inside / 2 + outside) * 8 * plan.context)


def test_what_a_device_moves_in_its_own_memory() -> None:
    weights = sum(p.numel() for p in tiny.network().parameters())
    assert moved(*small("ddp", ranks=1)) == 40 * weights  # AdamW: 28 bytes to update, 12 to clip
    assert moved(*small("ddp")) == (40 + 16) * weights
    assert moved(*small("fsdp")) == (40 / 4 + 3 * (4 * 2 + 8)) * weights
    assert moved(*small("ddp", optimizer="sgd")) == (32 + 16) * weights
    net, plan = billion()
    told = need(H100.model_copy(update={"memory_gb_s": 3350.0}), net, plan)  # type: ignore[arg-type]
    untold = need(H100, net, plan)  # type: ignore[arg-type]
    assert untold.moving == 0
    assert told.step == pytest.approx(untold.step + moved(net, replace(plan, ranks=8)) / 3350e9)  # type: ignore[arg-type]


def test_steps_are_cut_finer_until_they_fit(tmp_path: Path) -> None:
    net, plan = billion()
    sharded = H100.model_copy(update={"parallel": "fsdp"})
    roomy = need(sharded.model_copy(update={"memory_gb": 400.0}), net, plan)  # type: ignore[arg-type]
    tight = need(sharded, net, plan)  # type: ignore[arg-type]
    assert roomy.memory > 80e9 >= tight.memory
    assert tight.passing > roomy.passing, "a finer cut gathers more often"
    assert tight.computing == roomy.computing


def test_one_step_computes_six_operations_per_weight_and_token() -> None:
    net, plan = billion()
    found = need(H100, net, plan)  # type: ignore[arg-type]
    least = 6 * found.parameters * 256 * 2048 / (8 * 989e12 * 0.4)
    assert least < found.computing < 1.3 * least  # attention comes on top
    assert found.tokens == 256 * 2048


def test_twice_the_devices_halve_computing_not_passing() -> None:
    net, plan = billion()
    one, two = (need(H100.model_copy(update={"nodes": n}), net, plan) for n in (2, 4))  # type: ignore[arg-type]
    assert two.computing == pytest.approx(one.computing / 2)
    assert one.passing < two.passing < 1.1 * one.passing


def test_more_devices_than_rows_are_idle() -> None:
    net, plan = billion()
    few = replace(plan, rows=16)
    one, many = (need(H100.model_copy(update={"nodes": n}), net, few) for n in (2, 20))  # type: ignore[arg-type]
    assert one.computing == many.computing


def test_what_fits_nowhere_whole_is_sharded() -> None:
    net, plan = billion()
    small = H100.model_copy(update={"memory_gb": 24.0})
    assert need(H100.model_copy(update={"memory_gb": 400.0}), net, plan).parallel == "ddp"  # type: ignore[arg-type]
    sharded = need(small, net, plan)  # type: ignore[arg-type]
    assert sharded.parallel == "fsdp"
    assert sharded.checkpoint_here == pytest.approx(sharded.checkpoint / 8)
    assert sharded.memory < need(small.model_copy(update={"parallel": "ddp"}), net, plan).memory  # type: ignore[arg-type]


def test_the_interval_between_checkpoints_loses_least() -> None:
    """Young's formula against a search."""
    net, plan = billion()
    found = need(H100.model_copy(update={"nodes": 100}), net, plan)  # type: ignore[arg-type]

    def lost(interval: float) -> float:
        return found.writing / interval + interval / 2 / found.failure

    best = min((lost(found.interval * factor), factor) for factor in (0.5, 0.8, 0.95, 1.0, 1.05, 1.25, 2.0))
    assert best[1] == 1.0
    assert found.failure == pytest.approx(50_000 * 3600 / 800)


def test_the_example_is_a_cluster_and_the_command_shows_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = project(tmp_path)
    rows = needs(life(recipe), ROOT / "examples" / "cluster.toml")
    assert len(rows) == 11
    assert all(row["pretrain"] and row["from"] for row in rows)
    assert cli.main(["run", str(recipe), "--plan", "--system", str(ROOT / "examples" / "cluster.toml")]) == 0
    assert "128 (ddp)" in capsys.readouterr().out


def test_a_fault_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text("nodes = 2\nmemory_gb = 80\ntflop = 900\n")
    with pytest.raises(UserError) as caught:
        needs(life(project(tmp_path / "life")), tmp_path / "cluster.toml")
    assert "tflop" in caught.value.render()
    assert "cluster.toml:3" in caught.value.render()
