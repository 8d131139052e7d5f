"""The forecast for a described cluster: its formulas against figures worked out by hand, and its limits."""

from dataclasses import replace
from pathlib import Path

import pytest

from danlu import cli
from danlu.cluster import Cluster, need, needs, traffic
from danlu.errors import UserError
from danlu.models import qwen3
from danlu.models.architecture import empty
from danlu.train import plan as planning
from danlu.train.plan import Plan
from tests.conftest import ROOT
from tests.tiny_life import life, project
from tests.train.tiny import PLAN

H100 = Cluster(devices=8, memory_gb=80.0, tflops=989.0, link_gb_s=450.0, network_gb_s=50.0, disk_gb_s=40.0)


def billion() -> tuple[object, Plan]:
    """A network of a thousand million weights and a plan of half a million tokens a step."""
    net = empty(qwen3.preset(50_000, 2048, 16, width=2048, heads=16, hidden=6144, head_dim=128))
    plan = replace(
        PLAN, depth=16, rows=256, accumulate=1, context=2048, optimizer="adamw", precision="bf16", steps=1000
    )
    return net, replace(plan, step_gflop=planning.step_gflop(net, plan))


def test_traffic_of_a_ring_and_of_shards() -> None:
    base = replace(PLAN, ranks=4, accumulate=3, precision="bf16")
    assert traffic(1000, replace(base, parallel="ddp")) == 2 * 3 / 4 * 4000
    assert traffic(1000, replace(base, parallel="fsdp")) == 3 * 3 / 4 * (2 * 2000 + 4000)
    assert traffic(1000, replace(base, ranks=1)) == 0


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
