"""The certificate of a recipe: every line holds on a true twin, and each falls on the twin that is sabotaged there."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from danlu import cli, files, messages
from danlu import ranks as processes
from danlu.data import store
from danlu.data.loader import IGNORE, Loader
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.model import Model
from danlu.nn import network, transformer
from danlu.nn.attention import Attention
from danlu.proof import audit, gradients, parallel, resume
from danlu.proof.certificate import Check
from danlu.proof.served import served
from danlu.proof.twin import Twin, twins
from danlu.recipe import load_recipe
from danlu.serve.slots import Slots
from danlu.stages.prove import prove
from danlu.tasks.language_modeling import LanguageModeling
from danlu.train import checkpoint, compiling, session
from danlu.train.distributed import Replicas
from tests.tiny_life import PLAIN, RECIPE, project, sentences

CHATS = """
[finetune]
data = "chats.jsonl"
tune = "lora"
epochs = 1.0
"""
LONG = RECIPE.replace("context = 32", "context = 256")  # chats are not cut
ALL = {
    "accumulated", "ranks", "unpacked", "padded", "unpacked_fp32", "padded_fp32", "mask", "attention", "resumed",
    "saved", "served",
}  # fmt: skip


def chats(folder: Path) -> None:
    """Dialogs of two answers, one of which opens with a blank line, and one in Chinese."""
    rows = []
    for number, sentence in enumerate(sentences(120)):
        answer = ["The king.", "\n\nA ghost, as ever.", "炼丹炉里炼金丹。"][number % 3]
        turns = [("system", "Be brief."), ("user", sentence), ("assistant", answer), ("user", "Sure?")]
        rows.append({"messages": [{"role": role, "content": said} for role, said in [*turns, ("assistant", "Yes.")]]})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "chats.jsonl").write_text(lines, encoding="utf-8")


pytestmark = pytest.mark.usefixtures("steady")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text to pretrain on and chats to tune on; nothing has run yet."""
    made = project(tmp_path_factory.mktemp("prove") / "tiny", LONG + CHATS)
    chats(made.parent)
    return made


@pytest.fixture(scope="module")
def pair(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Twin]:
    return twins(Life(load_recipe(recipe)), tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module")
def text(pair: list[Twin]) -> Twin:
    return pair[0]


@pytest.fixture(scope="module")
def chat(pair: list[Twin]) -> Twin:
    return pair[1]


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


# --- the true twin ---


def test_a_recipe_that_never_ran_is_certified(recipe: Path) -> None:
    certificate = prove(load_recipe(recipe), Silent())
    assert list(certificate.checks) == ["pretrain", "finetune"]
    for stage, checks in certificate.checks.items():
        assert {check.name for check in checks} == ALL
        assert certificate.failed() == [], certificate.render()
        assert all(check.figure < 1e-5 for check in checks), stage
    assert certificate.error() is None
    assert "lora" in certificate.twins["finetune"]
    assert not list((recipe.parent / "runs").glob("*/run.json")), "a certificate is no run"


def test_the_command_shows_it_in_both_forms(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["prove", str(recipe), "finetune.tune=last-1", "-q"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("✓") == 2 * len(ALL)
    assert "】" in shown and "<|im_start|>" in shown
    assert cli.main(["prove", str(recipe), "--json", "finetune.tune=head"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["passed"] is True
    found = {check["check"]: check for check in table["stages"]["pretrain"]["checks"]}
    assert set(found) == ALL
    assert found["accumulated"]["figure"] <= 1e-12
    assert found["mask"]["rows"][0][0] == {"token": "<|endoftext|>", "learned": False}


def test_what_has_run_is_taken_from_its_folders(recipe: Path, tmp_path: Path) -> None:
    made = project(tmp_path / "ran", RECIPE)
    run = Life(load_recipe(made)).run(Silent(), "encode")
    (twin,) = twins(Life(load_recipe(made)), tmp_path / "twin")
    tokenizer = files.read_json(run.folders["encode"] / "tokens.json")["tokenizer"]
    assert twin.task.processor.vocab_size == tokenizer["vocab_size"]
    kept = {row["id"] for row in store.read(run.folders["prepare"] / "rows", "train")}
    assert twin.rows and {row["id"] for row in twin.rows} < kept


OTHERS = {
    "gpt2": ["model.arch=gpt2"],
    "characters": ["tokenizer.type=char"],
    "wordpiece": ["tokenizer.type=wordpiece"],
    "grouped": ["model.heads=2", "model.kv_heads=1"],
    "sgd": ["train.optimizer=sgd", "model.tied=false"],
}


@pytest.mark.parametrize("form", OTHERS)
def test_other_forms_are_certified(form: str, tmp_path: Path) -> None:
    made = project(tmp_path / "tiny", LONG + CHATS.replace('tune = "lora"', 'tune = "last-1"'))
    chats(made.parent)
    certificate = prove(load_recipe(made, OTHERS[form]), Silent())
    assert certificate.failed() == [], certificate.render()


def test_a_base_gives_its_form_and_its_tokenizer(recipe: Path, tmp_path: Path) -> None:
    """A recipe that tunes a base on chats has one training; the twin is of the base's form."""
    base = Life(load_recipe(project(tmp_path / "base", LONG), ["model.arch=gpt2"])).run(Silent(), "pretrain").model
    assert base
    tuning = tmp_path / "recipe.toml"
    tuning.write_text(f'task = "instruction"\n[data]\npath = "{recipe.parent}/chats.jsonl"\n[model]\nbase = "{base}"\n')
    loaded = load_recipe(tuning)
    (twin,) = twins(Life(loaded), tmp_path / "twin")
    assert (twin.stage, twin.task_name, twin.architecture.embed.positions) == ("finetune", "instruction", 128)
    assert twin.task.processor.vocab_size == files.read_json(base / "config.json")["vocab_size"]
    assert prove(loaded, Silent()).failed() == []


@pytest.mark.parametrize(("column", "code"), [("text", "E250"), ("prompt", "E201")])
def test_rows_that_the_task_cannot_read_are_refused(column: str, code: str, tmp_path: Path) -> None:
    made = project(tmp_path / "tiny", RECIPE.replace('"language_modeling"', '"instruction"', 1))
    (made.parent / "texts" / "rows.jsonl").write_text("".join(json.dumps({column: s}) + "\n" for s in sentences(40)))
    with pytest.raises(UserError) as caught:
        prove(load_recipe(made), Silent())
    assert caught.value.code == code


def test_answers_that_the_recipe_leaves_out_are_left_out(recipe: Path, chat: Twin, tmp_path: Path) -> None:
    """Chinese takes a token for each byte here; an answer of it is longer than the English ones."""
    loaded = load_recipe(recipe, ["finetune.max_answer=22"])
    shorter = twins(Life(loaded), tmp_path / "twin")[1]
    kept = [row["messages"] for row in shorter.rows]
    assert kept and not [row for row in kept if "炼" in row]
    assert len(kept) < len(chat.rows) and [row for row in chat.rows if "炼" in row["messages"]]
    assert audit.mask(shorter).passed
    with pytest.raises(UserError) as none:
        twins(Life(load_recipe(recipe, ["finetune.max_answer=1"])), tmp_path / "none")
    assert none.value.code == "E216"


def test_the_certificate_is_chinese_in_chinese(chat: Twin) -> None:
    messages.use("zh")
    try:
        said = [
            str(chat),
            *audit.mask(chat).lines()[:2],
            *parallel.two_ranks(chat).lines(),
        ]
    finally:
        messages.use("en")
    assert not [line for line in said if "rows" in line]
    assert f"{len(chat.rows)} 行" in said[0]


def test_the_learned_tokens_shown_are_the_answers_and_their_ends(chat: Twin) -> None:
    """The blank line before an answer may take the line end of the header with it; Chinese is shown byte by byte."""
    shown = ["".join(token for token, learned in row if learned) for row in audit.mask(chat).rows]
    assert len(shown) == 2
    for learned in shown:
        first, second, rest = learned.split("<|im_end|>")
        assert (second, rest) == ("Yes.", "")
        assert re.fullmatch(r"The king\.|\n{2,3}A ghost, as ever\.|(\\x[0-9a-f]{2})+|炼.*", first)


HIDING = {"masked_language_modeling": 'pairs = "next"', "replaced_token_detection": "weight = 20.0"}


@pytest.mark.parametrize("task", HIDING)
def test_tasks_that_hide_tokens_are_certified_and_their_masks_audited(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = PLAIN.replace("language_modeling", task).replace("vocab_size = 300", 'type = "wordpiece"\nvocab_size = 200')
    made = project(tmp_path / "tiny", f"{head}\n[options]\n{HIDING[task]}\n")
    rows = [" ".join(sentences(120)[at : at + 4]) for at in range(0, 120, 4)]
    (made.parent / "texts" / "rows.jsonl").write_text(
        "".join(json.dumps({"text": row}) + "\n" for row in rows), "utf-8"
    )
    (twin,) = twins(Life(load_recipe(made)), tmp_path / "twin")
    assert all(check.passed for check in (gradients.splits(twin), audit.mask(twin), audit.attention(twin)))
    weights = twin.network().state_dict()
    assert all(check.figure == 0 for check in served(twin, weights, tmp_path / "saved"))
    real = type(twin.task).corrupt

    def shifted(self: Any, batch: dict[str, Tensor], draws: torch.Generator) -> dict[str, Tensor]:
        made = real(self, batch, draws)
        return {**made, "labels": made["labels"].roll(1, 1)}

    monkeypatch.setattr(type(twin.task), "corrupt", shifted)
    assert audit.mask(twin).figure > 0
    monkeypatch.setattr(type(twin.task), "corrupt", lambda self, batch, draws: batch)
    assert not audit.mask(twin).passed, "nothing is hidden"


# --- the sabotaged twin ---


def mean_of_means(patch: pytest.MonkeyPatch) -> None:
    """Every micro-batch divided by its own count."""
    real = LanguageModeling.loss

    def loss(self: Any, net: Any, batch: dict[str, Tensor], part: str = "model") -> dict[str, Tensor]:
        return {"loss": real(self, net, batch, part)["loss"] / self.counts(batch)["loss"]}

    patch.setattr(LanguageModeling, "loss", loss)


def mean_across_ranks(patch: pytest.MonkeyPatch) -> None:
    """Every rank divided by its own count, and the mean of their gradients."""
    real = Replicas.reduce

    def reduce(self: Any, found: Any) -> None:
        found = list(found)
        real(self, found)
        torch._foreach_div_(found, parallel.COUNT)

    patch.setattr(Replicas, "reduce", reduce)
    patch.setattr(Replicas, "total", lambda self, values: values)


def shifted_mask(patch: pytest.MonkeyPatch, by: int = 1) -> None:
    """The loss mask of every row beside the tokens of its neighbours."""
    real = Loader._targets

    def targets(self: Any, start: int, size: int) -> Any:
        mask = self.mask
        self.mask = mask if mask is None else torch.roll(torch.tensor(mask[0 : len(mask)]), by).numpy()
        try:
            return real(self, start, size)
        finally:
            self.mask = mask

    patch.setattr(Loader, "_targets", targets)


def dropped_state(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint whose optimizer begins anew."""
    real = checkpoint.newest

    def newest(root: Path) -> Any:
        saved, damaged = real(root)
        for tensor in saved.optimizer.values() if saved else ():
            tensor.zero_()
        return saved, damaged

    patch.setattr(session.checkpoint, "newest", newest)


def leaking(patch: pytest.MonkeyPatch) -> None:
    """Documents of a packed row see those before them."""
    patch.setattr(network, "segment_mask", lambda segments: None)


SABOTAGE = {
    "finetune.accumulated": mean_of_means, "finetune.mask": shifted_mask, "pretrain.resumed": dropped_state,
    "pretrain.attention": leaking, "finetune.ranks": mean_across_ranks,
}  # fmt: skip


@pytest.mark.parametrize("line", SABOTAGE)
def test_the_whole_certificate_of_a_sabotaged_twin_fails(
    line: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SABOTAGE[line](monkeypatch)
    certificate = prove(load_recipe(recipe), Silent())
    assert line in certificate.failed()
    error = certificate.error()
    assert error is not None and error.code == "E520"


def test_a_mean_of_means_is_caught(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    mean_of_means(monkeypatch)
    assert gradients.splits(text).figure > 1e-3
    assert parallel.two_ranks(text).figure > 1e-3


def test_a_mean_of_means_across_ranks_is_caught(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank divides by its own count, and the gradients are averaged, as data parallel training often does."""
    mean_across_ranks(monkeypatch)
    assert gradients.splits(text).passed
    assert parallel.two_ranks(text).figure > 1e-3


def test_replicas_that_come_apart_are_caught(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 alone gets the sum."""
    real = Replicas.reduce

    def reduce(self: Any, found: Any) -> None:
        whole = [g.clone() for g in found] if processes.rank() else found
        real(self, whole)

    monkeypatch.setattr(Replicas, "reduce", reduce)
    assert not parallel.two_ranks(text).passed


def test_a_rank_that_fails_or_dies_is_no_proof(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, found: Any) -> None:
        raise ValueError("no network")

    monkeypatch.setattr(Replicas, "reduce", failing)
    check = parallel.two_ranks(text)
    assert not check.passed and "ValueError: no network" in check.evidence
    monkeypatch.setattr(Replicas, "reduce", lambda self, found: os.kill(os.getpid(), signal.SIGKILL))
    check = parallel.two_ranks(text)
    assert not check.passed and "ended early" in check.evidence


@pytest.mark.slow
def test_ranks_that_are_started_anew_prove_the_same(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fork is not safe."""
    forked = parallel.two_ranks(text)
    monkeypatch.setattr(parallel, "START", "spawn")
    spawned = parallel.two_ranks(text)
    assert spawned.passed and spawned.figure == forked.figure


def test_a_loop_that_forgets_a_micro_batch_is_caught(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    collecting, calls = gradients.Wide.collecting, []

    def forgetful(self: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            self.clear()
        return collecting(self)

    monkeypatch.setattr(gradients.Wide, "collecting", forgetful)
    assert not gradients.splits(text).passed


@pytest.mark.parametrize("by", [-1, 1])
def test_a_shifted_mask_is_caught(by: int, chat: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted_mask(monkeypatch, by)
    assert audit.mask(chat).figure > 0


def test_labels_beside_the_wrong_inputs_are_caught(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Loader._targets
    monkeypatch.setattr(Loader, "_targets", lambda self, start, size: real(self, start - 1, size))
    assert audit.mask(text).figure > 0


def test_a_question_that_is_learned_is_caught(chat: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Loader.assemble

    def all_learned(self: Any, rows: list[int]) -> dict[str, Tensor]:
        batch = real(self, rows)
        following, left_out = batch["input_ids"].roll(-1, 1), batch["labels"] == IGNORE
        return batch | {"labels": torch.where(left_out & (batch["segment_ids"] > 0), following, batch["labels"])}

    monkeypatch.setattr(Loader, "assemble", all_learned)
    assert audit.mask(chat).figure > 0


@pytest.mark.parametrize("which", [0, 1])
def test_attention_across_documents_is_caught(which: int, pair: list[Twin], monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit.attention(pair[which]).figure == 0.0
    leaking(monkeypatch)
    assert audit.attention(pair[which]).figure > 1e-6
    assert not named(gradients.layouts(pair[which]), "unpacked").passed


def test_attention_to_later_tokens_is_caught(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danlu.nn.transformer.reach", lambda queries, keys, causal, window: None)
    assert audit.attention(text).figure > 1e-6


def test_attention_that_sees_nothing_is_no_proof(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attention, "forward", lambda self, x, *rest: torch.zeros_like(x))
    assert not audit.attention(text).passed


def test_a_dropped_optimizer_state_is_caught(chat: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resume.resumed(chat, tmp_path)[0].passed
    dropped_state(monkeypatch)
    (tmp_path / "again").mkdir()
    check, _ = resume.resumed(chat, tmp_path / "again")
    assert check.figure > 0
    first, second = check.evidence.removeprefix("sha256 ").split(" · ")
    assert first != second


def test_compiled_blocks_are_compared_where_the_recipe_asks_for_them(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a program that is the block itself: what a compiler makes of it is tested elsewhere, for it takes long."""
    monkeypatch.setattr(compiling, "available", lambda where: True)
    monkeypatch.setattr(transformer, "program", lambda: lambda block, *inputs: block(*inputs))
    found = prove(load_recipe(recipe, ["system.compile=true"]), Silent())
    assert found.failed() == [] and found.left_out == []
    assert all(named(checks, "compiled").figure == 0 for checks in found.checks.values())
    assert not found.render().endswith(messages.text("proof.left_out.compiled"))


def test_a_program_that_computes_something_else_is_caught(text: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "program", lambda: lambda block, *inputs: block(*inputs))
    assert gradients.compiled(text).passed
    monkeypatch.setattr(transformer, "program", lambda: lambda block, *inputs: block(*inputs) * 1.0001)
    assert not gradients.compiled(text).passed


@pytest.mark.parametrize(("wish", "there"), [("auto", True), ("false", True), ("true", False)])
def test_it_is_said_where_compiled_blocks_are_not_checked(
    wish: str, there: bool, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "available", lambda where: there)
    monkeypatch.setattr("danlu.stages.prove._checks", lambda twin, compiles: iter(()))
    found = prove(load_recipe(recipe, [f"system.compile={wish}"]), Silent())
    assert found.table()["left_out"] == ["compiled"]
    assert found.render().endswith(messages.text("proof.left_out.compiled"))


def test_perturbed_weights_are_caught(text: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, weights = files.write_tensors, dict(text.network().state_dict())

    def perturbed(path: Path, tensors: dict[str, Tensor], *rest: Any) -> None:
        name = next(name for name in tensors if "v_proj" in name)
        real(path, tensors | {name: tensors[name] * 1.01}, *rest)

    assert all(check.passed for check in served(text, weights, tmp_path / "true"))
    monkeypatch.setattr(files, "write_tensors", perturbed)
    assert not any(check.passed for check in served(text, weights, tmp_path / "false"))


def test_a_cache_at_the_wrong_place_is_caught(text: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, weights = Slots.read, dict(text.network().state_dict())
    monkeypatch.setattr(Slots, "read", lambda self, slot, tokens, start: real(self, slot, tokens[::-1], start))
    found = served(text, weights, tmp_path / "model")
    assert named(found, "saved").passed
    assert not named(found, "served").passed


def test_an_adapter_left_out_is_caught(chat: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = chat.network()
    weights = {name: t + 0.05 if "lora_up" in name else t for name, t in net.state_dict().items()}
    assert all(check.passed for check in served(chat, weights, tmp_path / "true"))
    plain = {name: tensor for name, tensor in weights.items() if "lora" not in name}
    monkeypatch.setattr("danlu.proof.served.merged_state", lambda network, state: plain)
    assert not any(check.passed for check in served(chat, weights, tmp_path / "false"))


def test_a_failed_certificate_is_said_and_decides_the_exit_code(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Model, "save_pretrained", _saving_noise(Model.save_pretrained))
    assert cli.main(["prove", str(recipe), "-q"]) == 6
    shown = capsys.readouterr()
    assert "E520" in shown.err and "pretrain.saved" in shown.err and "finetune.served" in shown.err
    assert shown.out.count("DOES NOT HOLD") == 4
    assert cli.main(["prove", str(recipe), "--json"]) == 6
    table = json.loads(capsys.readouterr().out)
    assert table["passed"] is False
    assert [c["check"] for c in table["stages"]["pretrain"]["checks"] if not c["passed"]] == ["saved", "served"]


def _saving_noise(real: Callable[..., None]) -> Callable[..., None]:
    def save(self: Any, folder: Path, weights: dict[str, Tensor]) -> None:
        real(self, folder, {name: tensor + 0.01 * (tensor.ndim > 1) for name, tensor in weights.items()})

    return save
