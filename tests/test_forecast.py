"""What `--plan` says of its figures: each is measured or estimated, and from what."""

from pathlib import Path
from typing import Any

import pytest

from danlu import cluster, files, forecast, room
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.model import Model
from danlu.train import cost, pace, sides
from danlu.train import plan as planning
from tests.api import bert
from tests.tiny_life import PLAIN, RECIPE, life, project

FIGURES = ("minutes", "memory MB", "disk MB")
TUNED = """
task = "text_classification"
data = {{ path = "rows.jsonl", split = {{ valid = 0.1, test = 0.1 }} }}
model = {{ base = "{base}", context = 32 }}
train = {{ epochs = 4.0, batch_tokens = 256, precision = "fp32" }}
"""


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", "en")


def rows(recipe: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in forecast.forecast(life(recipe, *overrides))}


def origins(row: dict[str, Any]) -> dict[str, str]:
    """Figure -> what it is said to come from."""
    parts = (part.partition(": ") for part in row["from"].split("; "))
    return {figure: origin for figure, _, origin in parts}


def test_every_figure_of_every_stage_says_whether_it_is_measured(tmp_path: Path) -> None:
    table = rows(project(tmp_path))
    total = table.pop("total")
    for row in table.values():
        said = origins(row)
        assert tuple(said) == FIGURES, row
        assert all(origin.startswith(("measured", "estimated")) for origin in said.values()), row
    assert [name for name, row in table.items() if origins(row)["minutes"].startswith("measured")] == ["pretrain"]
    assert "% of it measured" in origins(total)["minutes"]


def test_a_pace_is_called_measured_only_where_steps_were_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seconds that are shown are those that the steps of the copy took."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # such steps may have been tried before
    monkeypatch.setattr(pace, "step_seconds", lambda *_, **__: 0.5)
    monkeypatch.setattr(cost, "peak", lambda precision, where="cpu": 1e11)
    said = origins(rows(project(tmp_path))["pretrain"])
    assert "0.52 s of a step here, times 6" in said["minutes"]  # with the slack of a mean over a median


def test_memory_is_estimated_where_the_system_does_not_say_what_a_process_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = project(tmp_path)
    assert origins(rows(recipe)["pretrain"])["memory MB"].startswith("measured")
    monkeypatch.setattr(room, "peak", lambda: 0.0)
    monkeypatch.setattr(room, "resident", lambda: 0.0)
    assert origins(rows(recipe)["pretrain"])["memory MB"].startswith("estimated")


def test_reading_is_estimated_from_the_rate_of_this_machine_once_there_is_one(tmp_path: Path) -> None:
    recipe = project(tmp_path)
    assert "two cores of a server" in origins(rows(recipe)["prepare"])["minutes"]
    life(recipe).run(Silent(), "prepare")
    assert "this machine's latest preparation" in origins(rows(recipe, "data.limit_mb=1.0")["prepare"])["minutes"]


def test_what_is_done_already_costs_nothing_and_claims_nothing(tmp_path: Path) -> None:
    recipe = project(tmp_path)
    life(recipe).run(Silent(), "encode")
    row = rows(recipe)["encode"]
    assert [row[figure] for figure in FIGURES] == [0, 0, 0]
    assert row["from"] == ""


def test_it_is_said_that_the_steps_of_one_device_stand_for_several(tmp_path: Path) -> None:
    assert "2 will share the work" in rows(project(tmp_path), "system.devices=2")["pretrain"]["from"]


def test_a_training_is_measured_as_it_will_be_with_its_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finetune with LoRA: its matrices are frozen in the steps that are taken."""
    seen: dict[str, list[float]] = {}

    def noted(request: Any, net: Any) -> Any:
        trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
        seen.setdefault(request.begins, []).append(trained / sum(p.numel() for p in net.parameters()))
        return real(request, net)

    real = planning.resolve
    monkeypatch.setattr(planning, "resolve", noted)
    recipe = project(tmp_path, RECIPE + '[finetune]\nderive = "same_rows"\ntune = "lora"\nsteps = 4\n')
    assert "finetune" in rows(recipe)
    assert seen["random"] == [1.0]
    assert seen["trained"][0] < 0.2


def test_a_tuning_is_forecast_as_the_base_it_begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network tried is that of the base's folder under a head that judges, and its steps those that come."""
    tried: list[Any] = []
    real = planning.resolve
    monkeypatch.setattr(planning, "resolve", lambda request, net: tried.append((request, net)) or real(request, net))
    base = bert.folder(tmp_path / "base", hidden_size=48)
    bert.jsonl(tmp_path / "rows.jsonl", bert.rows(300))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TUNED.format(base=base), "utf-8")
    planned = origins(rows(recipe)["finetune"])["minutes"]
    ((request, net),) = tried
    assert (net.embed.tokens.weight.shape[1], net.head.config.count, request.task.judges) == (48, 2, True)
    made = life(recipe)
    made.run(Silent())
    taken = files.read_json(made.folders["finetune"] / "metrics.json")["steps"]
    assert int(planned.rpartition(" ")[2]) == pytest.approx(taken, rel=0.2)


def test_once_rows_are_encoded_short_ones_are_forecast_as_they_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    real = planning.resolve
    monkeypatch.setattr(
        planning, "resolve", lambda request, net: tried.append(request.loader.context) or real(request, net)
    )
    base = bert.folder(tmp_path / "base", max_position_embeddings=258)
    bert.jsonl(tmp_path / "rows.jsonl", bert.rows(300))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TUNED.format(base=base).replace("context = 32", "context = 256"), "utf-8")
    rows(recipe)
    made = life(recipe)
    made.run(Silent(), "encode")
    rows(recipe)
    assert tried[:2] == [256, 128]
    made.run(Silent())
    plan = planning.Plan.read(made.folders["finetune"])
    assert plan is not None and plan.context == 128


@pytest.mark.usefixtures("steady")
def test_the_smaller_steps_of_adapters_are_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the plan, by that of a cluster, and as they come."""
    tried: list[Any] = []
    real = planning.resolve
    monkeypatch.setattr(planning, "resolve", lambda request, net: tried.append(real(request, net)) or tried[-1])
    bert.jsonl(tmp_path / "rows.jsonl", bert.rows(300))
    recipe = tmp_path / "recipe.toml"
    written = TUNED.format(base=bert.folder(tmp_path / "base")).replace("batch_tokens = 256, ", "")
    recipe.write_text(written + '[finetune]\ntune = "lora"\n', "utf-8")
    rows(recipe)
    made = life(recipe)
    state = next(each for each in made.states() if each.node.name == "finetune")
    tried += [cluster.planned(made, state)[1], planning.Plan.read(made.run(Silent()).folders["finetune"])]
    assert {plan.rows * plan.accumulate * plan.context for plan in tried} == {512}


MASKED = PLAIN.replace("context = 32", "context = 64")


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("task", ["masked_language_modeling", "replaced_token_detection", "span_denoising"])
def test_what_pretrains_an_encoder_is_forecast_too(task: str, tmp_path: Path) -> None:
    row = rows(project(tmp_path, MASKED.replace("language_modeling", task)))["pretrain"]
    assert origins(row)["minutes"].startswith("measured") and row["memory MB"] > 100


@pytest.mark.usefixtures("steady")
def test_of_an_encoder_decoder_the_plan_knows_what_each_side_takes(tmp_path: Path) -> None:
    made = life(project(tmp_path, MASKED.replace("language_modeling", "span_denoising")))
    folder = made.run(Silent(), "pretrain").folders["pretrain"]
    plan, net = planning.Plan.read(folder), Model.from_pretrained(folder).net
    assert plan is not None and 0 < plan.target < plan.source <= 64
    a_row = sides.flops(net, plan.source, plan.target)
    assert plan.step_gflop == pytest.approx(plan.rows * plan.accumulate * a_row / 1e9)
    state = next(each for each in made.states() if each.node.name == "pretrain")
    described = cluster.planned(made, state)[1]
    assert described.source and described.step_gflop > 0


def test_a_plan_from_before_that_was_known_goes_on(tmp_path: Path) -> None:
    known = {name: 1 if kind in (int, "int") else 0 for name, kind in planning.Plan.__annotations__.items()}
    planning.Plan(**known).write(tmp_path)
    path = tmp_path / planning.PLAN
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(("source", "target"))), "utf-8")
    assert (read := planning.Plan.read(tmp_path)) is not None and (read.source, read.target, read.rows) == (0, 0, 1)
    path.write_text("".join(line for line in lines if not line.startswith("rows")), "utf-8")
    with pytest.raises(UserError) as caught:
        planning.Plan.read(tmp_path)
    assert caught.value.code == "E306"
