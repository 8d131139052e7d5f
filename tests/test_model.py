"""Model folders that were really trained: what is loaded is what was saved, here and in transformers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from danlu import Model, files
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.models import architecture
from danlu.nn.generate import Sampling
from danlu.runs import model_folder
from tests.models.stock import lift
from tests.tiny_life import life, no_clock, project, sentences

TUNED = ["finetune.data=chats", "finetune.tune=lora", "finetune.steps=3", "finetune.lr=0.01", "model.context=128"]
LIVES = {"qwen3": ["model.kv_heads=1", "model.depth=2"], "gpt2": ["model.arch=gpt2"], "chat": TUNED}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model folders of three lives that share their data."""
    threads = torch.get_num_threads()
    recipe = project(tmp_path_factory.mktemp("models") / "tiny")
    (recipe.parent / "chats").mkdir()
    rows = [
        {"messages": [{"role": "user", "content": s}, {"role": "assistant", "content": s[::-1]}]} for s in sentences(60)
    ]
    (recipe.parent / "chats" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.MonkeyPatch.context() as patch:
        no_clock(patch)
        runs = {
            name: life(recipe, *given).run(Silent(), "finetune" if name == "chat" else "pretrain")
            for name, given in LIVES.items()
        }
    torch.set_num_threads(threads)
    return {name: run.model for name, run in runs.items() if run.model}


@pytest.fixture(params=list(LIVES))
def folder(request: pytest.FixtureRequest, trained: dict[str, Path]) -> Path:
    return trained[request.param]


def batch(model: Model) -> Tensor:
    """Two rows of held-out text, (2, T)."""
    ids = [model.processor.encode(f"The tired {who} hears a garden, 999. The old fool") for who in ("queen", "king")]
    return torch.tensor([row[:20] for row in ids])


def stock(folder: Path, dtype: torch.dtype) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


# --- saved, loaded ---


def test_no_weight_is_drawn_that_a_folder_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes as long as reading them; what is drawn from nothing must not be left in any place."""
    expected = Model.from_pretrained(folder).net.state_dict()
    monkeypatch.setattr(architecture, "initialise", lambda *_: pytest.fail("weights were drawn"))
    empty, rooms = torch.empty, []

    def unknown(*shape: Any, **kind: Any) -> Tensor:
        rooms.append(shape)
        made = empty(*shape, **kind)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", unknown)
    found = Model.from_pretrained(folder).net.state_dict()
    assert rooms
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_saved_and_loaded_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(folder)
    assert not model.training
    model.save_pretrained(tmp_path / "again")
    again = Model.from_pretrained(tmp_path / "again")
    ids = batch(model)
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    assert (again.task_name, again.chat, again.context) == (model.task_name, model.chat, model.context)
    assert again.architecture == model.architecture
    assert again.predict("The old", Sampling(max_tokens=9, seed=3)) == model.predict(
        "The old", Sampling(max_tokens=9, seed=3)
    )
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_folder_says_how_it_usually_speaks(folder: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(folder)
    usual = model.usual
    assert (usual.temperature, usual.top_p, usual.repetition_penalty) == (0.8, 0.95, 1.2 if model.chat else 1.0)
    model.save_pretrained(tmp_path)
    said = files.read_json(tmp_path / "generation_config.json")
    files.write_json(tmp_path / "generation_config.json", said | {"temperature": 0.3, "top_k": 5})
    again = Model.from_pretrained(tmp_path)
    assert again.usual == replace(model.usual, temperature=0.3, top_k=5)
    again.save_pretrained(tmp_path / "again")
    assert Model.from_pretrained(tmp_path / "again").usual == again.usual


@pytest.mark.parametrize("said", [{"temperature": -1}, {"top_p": "much"}, []])
def test_an_impossible_way_to_speak_is_named(folder: Path, tmp_path: Path, said: object) -> None:
    Model.from_pretrained(folder).save_pretrained(tmp_path)
    files.write_json(tmp_path / "generation_config.json", said)
    with pytest.raises(UserError, match="generation_config"):
        Model.from_pretrained(tmp_path)


def test_it_was_really_trained(folder: Path) -> None:
    model = Model.from_pretrained(folder)
    fresh = Model.from_architecture(model.architecture, model.processor, model.task_name, seed=7)
    ids = batch(model)
    labels = _next(ids)
    with torch.no_grad():
        before, after = (float(each.eval()(input_ids=ids, labels=labels).loss) for each in (fresh, model))
    assert after < before - 0.3


def test_a_fresh_model_is_a_pure_function_of_its_seed(trained: dict[str, Path]) -> None:
    known = Model.from_pretrained(trained["qwen3"])
    states = [
        Model.from_architecture(known.architecture, known.processor, "language_modeling", seed).net.state_dict()
        for seed in (1, 1, 2)
    ]
    assert files.tensors_hash(states[0]) == files.tensors_hash(states[1]) != files.tensors_hash(states[2])


def test_the_folder_holds_what_others_and_we_need(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "tokenizer.json", "generation_config.json",
        "danlu.toml", "metrics.json", "lineage.json", "manifest.json",
    }  # fmt: skip
    assert files.damage(folder) == []
    config = json.loads((folder / "config.json").read_text())
    assert config["danlu"]["schema"] == 1
    assert not any("lora" in name for name in files.read_tensors(folder / "model.safetensors"))
    assert all(tensor.dtype == torch.float32 for tensor in files.read_tensors(folder / "model.safetensors").values())


# --- transformers ---


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_transformers_opens_it_with_the_same_logits(
    folder: Path, dtype: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == torch.float64:
        lift(monkeypatch, "qwen3")
    ours, theirs = Model.from_pretrained(folder).to(dtype), stock(folder, dtype)
    ids = batch(ours)
    with torch.no_grad():
        a, b = ours(input_ids=ids).logits, theirs(input_ids=ids).logits
    assert a.dtype == b.dtype == dtype
    assert float(a.std()) > 0.3
    torch.testing.assert_close(a, b, rtol=0, atol=limit)
    with torch.no_grad():  # the comparison sees a small change of one norm
        next(p for name, p in ours.net.named_parameters() if name.endswith("attention.norm.weight"))[0] *= 1.05
        assert not torch.allclose(ours(input_ids=ids).logits, b, rtol=0, atol=limit)


def _next(ids: Tensor) -> Tensor:
    """Labels (B, T) of ours: the token after each; the last has none."""
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -100)], dim=1)


def test_the_loss_is_transformers_loss_with_shifted_labels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lift(monkeypatch, "qwen3")
    ours, theirs = Model.from_pretrained(folder).double(), stock(folder, torch.float64)
    ids = batch(ours)
    labels = ids.clone()
    labels[0, :7] = -100  # a prompt that does not count
    here = ours(input_ids=ids, labels=_next(labels))
    there = theirs(input_ids=ids, labels=labels)
    assert here.loss is not None
    assert here.loss.item() == pytest.approx(there.loss.item(), rel=2e-7)  # theirs is computed in fp32
    assert here.loss.item() != pytest.approx(ours(input_ids=ids, labels=_next(ids)).loss.item(), rel=1e-3)
    here.loss.backward()
    there.loss.backward()
    ours_gradient = ours.net.embed.tokens.weight.grad
    torch.testing.assert_close(ours_gradient, theirs.get_input_embeddings().weight.grad, rtol=1e-4, atol=1e-7)


def test_no_labels_no_loss(trained: dict[str, Path]) -> None:
    model = Model.from_pretrained(trained["qwen3"])
    assert model(input_ids=batch(model)).loss is None
    ids = batch(model)
    nothing = model(input_ids=ids, labels=torch.full_like(ids, -100)).loss
    assert nothing is not None
    assert nothing.item() == 0.0


def test_padding_is_their_attention_mask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lift(monkeypatch, "qwen3")
    ours, theirs = Model.from_pretrained(folder).double(), stock(folder, torch.float64)
    ids = batch(ours)
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    with torch.no_grad():
        a = ours(input_ids=ids, segment_ids=mask).logits
        b = theirs(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(a[mask == 1], b[mask == 1], rtol=0, atol=1e-8)


def test_their_tokenizer_is_ours(folder: Path) -> None:
    ours = Model.from_pretrained(folder).processor
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(theirs) == ours.vocab_size
    for text in ("The old king, 12.", "  spaces\n\n\ttabs", "炼丹炉 🔥", "naïve — “quotes”"):
        ids = ours.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == ours.decode(ids) == text


def test_a_chat_model_ends_its_turns(trained: dict[str, Path]) -> None:
    model = Model.from_pretrained(trained["chat"])
    assert model.chat
    assert not Model.from_pretrained(trained["qwen3"]).chat
    theirs = stock(trained["chat"], torch.float32)
    assert theirs.config.eos_token_id == model.processor.end_turn
    assert set(theirs.generation_config.eos_token_id) == {model.processor.end_id, model.processor.end_turn}


def test_greedy_text_is_theirs(trained: dict[str, Path]) -> None:
    model = Model.from_pretrained(trained["qwen3"]).double()
    ids = [model.processor.end_id, *model.processor.encode("The old king")]
    theirs = stock(trained["qwen3"], torch.float64)
    made = theirs.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, temperature=None, top_p=None)
    new = made[0, len(ids) :].tolist()
    expected = model.processor.decode([token for token in new if token != model.processor.end_id])
    assert model.predict("The old king", Sampling(max_tokens=12, temperature=0.0)) == expected


# --- what is wrong is said ---


@pytest.fixture
def copy(trained: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(trained["qwen3"], tmp_path / "model")
    return tmp_path / "model"


def refusal(folder: Path) -> UserError:
    with pytest.raises(UserError) as problem:
        Model.from_pretrained(folder)
    assert problem.value.exit == 4
    return problem.value


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_named(name: str, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    for harm in (content[:-1], content[:-9] + b"x" + content[-8:], b""):
        (copy / name).write_bytes(harm)
        problem = refusal(copy)
        assert problem.code == "E302"
        assert name in problem.render()
    (copy / name).unlink()
    assert refusal(copy).code in ("E301", "E302", "E304")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"danlu": 3}', b"\xff" * 9])
def test_a_foreign_folder_is_checked_without_a_manifest(name: str, content: bytes, copy: Path) -> None:
    (copy / "manifest.json").unlink()
    (copy / name).write_bytes(content)
    assert refusal(copy).code in ("E301", "E322", "E311")


def test_weights_that_do_not_fit_are_listed(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    tensors = files.read_tensors(copy / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    for changed, said in (
        ({n: t for n, t in tensors.items() if n != name}, "—"),
        (tensors | {name: tensors[name][:-1]}, f"{tensors[name].shape[0] - 1}×64"),
    ):
        files.write_tensors(copy / "model.safetensors", changed)
        problem = refusal(copy)
        assert problem.code == "E308"
        assert said in problem.render()
        assert "core.blocks.0.mlp.inner.up.weight" in problem.render()
    files.write_tensors(copy / "model.safetensors", tensors | {"model.extra": torch.ones(1)})
    assert refusal(copy).code in ("E308", "E321")


def test_a_newer_schema_is_refused(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    config = json.loads((copy / "config.json").read_text())
    config["danlu"]["schema"] = 2
    (copy / "config.json").write_text(json.dumps(config))
    assert refusal(copy).code == "E303"


def test_another_kind_of_model_is_named(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    assert "mamba" in refusal(copy).render()


def test_a_folder_runs_no_code_of_its_own(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    (copy / "modeling_evil.py").write_text("raise SystemExit('ran')")
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="never runs code") as caught:
        Model.from_pretrained(copy)
    assert caught.value.code == "E327"


def test_models_are_found_by_path_run_and_name(trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home = trained["qwen3"].parents[2]
    monkeypatch.chdir(home)
    for path in (trained["qwen3"], "runs/tiny-1", "tiny-1"):
        assert model_folder(path).resolve() == trained["qwen3"]
    for path in ("tiny", home, "recipe.toml", home / "recipe.toml"):
        assert model_folder(path).resolve() == trained["chat"]
    for path in ("nothing", "texts", "tiny-9", "texts/rows.jsonl"):
        with pytest.raises(UserError) as problem:
            model_folder(path)
        assert (problem.value.code, problem.value.exit) == ("E304", 4)
