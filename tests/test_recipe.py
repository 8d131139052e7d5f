"""Reading recipes: every fault is found, placed, and mended in the message; what is saved reads back the same."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from danlu.config import Train
from danlu.errors import Problems, UserError
from danlu.graph import plain
from danlu.life import life
from danlu.recipe import Loaded, all_keys, keys_of, load_recipe, resolved

BASE = 'task = "language_modeling"\n\n[data]\npath = "texts"\n'
KEYS = list(dict.fromkeys(all_keys()))
SECTIONS = {key[:length] for key in KEYS for length in range(1, len(key))}
LEAVES = [key for key in KEYS if key not in SECTIONS]
Reader = Callable[..., Loaded]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def reader(content: str, *overrides: str) -> Loaded:
        path = tmp_path / "recipe.toml"
        path.write_text(content, encoding="utf-8")
        return load_recipe(path, overrides)

    return reader


def faults(read: Reader, content: str, *overrides: str) -> list[UserError]:
    """All problems of one reading; fails the test when there is none."""
    with pytest.raises(UserError) as raised:
        read(content, *overrides)
    return raised.value.problems if isinstance(raised.value, Problems) else [raised.value]


def fault(read: Reader, content: str, *overrides: str) -> UserError:
    problems = faults(read, content, *overrides)
    assert len(problems) == 1, [problem.render() for problem in problems]
    return problems[0]


def place(problem: UserError) -> tuple[int, int]:
    """(line, column) of a problem in recipe.toml."""
    found = re.fullmatch(r".*recipe\.toml:(\d+):(\d+)", problem.where)
    assert found, problem.where
    return int(found[1]), int(found[2])


def written(key: tuple[str, ...], value: str) -> tuple[str, int]:
    """A recipe that is right but for `key = value`, and the line on which that stands."""
    lines = [f"{key[0]} = {value}"] if len(key) == 1 else []
    lines += [] if key == ("task",) else ['task = "language_modeling"']
    if key != ("data", "path") and key[0] != "data":
        lines += ["[data]", 'path = "texts"']
    if len(key) > 1:
        lines += [f"[{'.'.join(key[:-1])}]", f"{key[-1]} = {value}"]
        line = len(lines)
        if key[0] == "distill" and key[-1] != "teacher":
            lines += ['teacher = "runs/teacher"']
        if key[0] == "data" and key != ("data", "path"):
            lines += ['path = "texts"'] if len(key) == 2 else ["[data]", 'path = "texts"']
        return "\n".join(lines), line
    return "\n".join(lines), 1


# --- keys that do not exist ---


def typos(name: str) -> Iterator[str]:
    """Names one edit away: a letter more, fewer, other, or two swapped."""
    for at in range(len(name)):
        yield name[:at] + name[at + 1 :]
        yield name[:at] + "x" + name[at + 1 :]
        yield name[:at] + "_" + name[at:]
        yield name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :]


def near(one: str, other: str) -> bool:
    """Whether one edit (a swap of neighbours counts as one) makes `one` of `other`."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_every_typo_is_told_what_was_meant(key: tuple[str, ...]) -> None:
    from danlu.recipe import _unknown

    valid = keys_of(key[:-1])
    tried = [name for name in dict.fromkeys(typos(key[-1])) if name and name not in valid]
    assert tried
    for typo in tried:
        said = re.search(r"did you mean (\w+)\?", _unknown((*key[:-1], typo), "r.toml:1:1", {}).render())
        assert said, typo
        assert said[1] == key[-1] or near(said[1], typo), f"{typo}: {said[1]} is further away than {key[-1]}"


@pytest.mark.parametrize("key", LEAVES, ids=".".join)
def test_a_typo_is_found_where_it_stands(key: tuple[str, ...], read: Reader) -> None:
    typo = key[-1] + "s" if key[-1] + "s" not in keys_of(key[:-1]) else key[-1] + "x"
    content, line = written((*key[:-1], typo), "1")
    problems = [each for each in faults(read, content) if each.code == "E102"]
    assert [place(each) for each in problems] == [(line, 1)]
    assert key[-1] in problems[0].render()
    assert problems[0].exit == 2


def test_a_typo_in_an_inline_table_has_its_column(read: Reader) -> None:
    problem = fault(read, BASE + "split = { vaild = 0.1 }\n")
    assert (problem.code, place(problem)) == ("E102", (5, 11))
    assert "valid" in problem.render().splitlines()[0]


def test_a_key_in_the_wrong_section_is_told_where_it_stands(read: Reader) -> None:
    problem = fault(read, BASE + "\n[model]\nvocab_size = 500\n")
    assert "it stands in tokenizer.vocab_size" in problem.render()


def test_an_unknown_section(read: Reader) -> None:
    problem = fault(read, BASE + "\n[tokeniser]\ntype = 'bpe'\n")
    assert (problem.code, place(problem)) == ("E102", (6, 1))
    assert "tokenizer" in problem.render()


# --- values ---


@pytest.mark.parametrize("key", LEAVES, ids=".".join)
def test_a_wrong_type_is_placed(key: tuple[str, ...], read: Reader) -> None:
    content, line = written(key, "[[1979-05-27]]")
    problem = fault(read, content)
    assert (problem.code, place(problem)) == ("E104", (line, 1))
    assert f"{'.'.join(key)} must be " in problem.render()


NUMBERS = {"lr", "threshold", "valid", "test", "dropout", "warmup", "limit_mb", "depth", "seed", "port"}
NUMBERS |= {"tokens", "steps"}


@pytest.mark.parametrize("value", ["nan", "-inf", "true"])
@pytest.mark.parametrize("key", [key for key in LEAVES if key[-1] in NUMBERS], ids=".".join)
def test_numbers_are_finite_numbers(key: tuple[str, ...], value: str, read: Reader) -> None:
    content, line = written(key, value)
    problem = fault(read, content)
    assert (problem.code, place(problem)) == ("E104", (line, 1))


OUT_OF_RANGE = {
    "train.lr": "0", "train.warmup": "1.0", "train.momentum": "-0.1", "train.clip": "-1", "train.batch_tokens": "0",
    "train.steps": "0", "train.epochs": "-2.5", "train.tokens": "0", "train.budget": '"0s"', "train.accumulate": "0",
    "pretrain.beta2": "1", "finetune.evaluate_every": "0", "model.depth": "0", "model.context": "15",
    "train.dropout": "1.0", "data.section": "199", "data.limit_mb": "0.0", "data.dedup.threshold": "0.29",
    "data.dedup.size": "21", "data.split.valid": "1.0", "tokenizer.vocab_size": "63", "evaluate.ngram": "9",
    "serve.port": "65536", "serve.slots": "0", "seed": "-1", "system.threads": "0", "train.deadline": '"5 parsecs"',
    "finetune.tune": '"last-0"', "finetune.split.test": "-0.1", "train.optimizer": '"sdg"', "data.path": "[]",
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), OUT_OF_RANGE.items())
def test_a_value_out_of_range_is_placed(key: str, value: str, read: Reader) -> None:
    content, line = written(tuple(key.split(".")), value)
    problem = fault(read, content)
    assert (problem.code, place(problem), problem.exit) == ("E104", (line, 1), 2)
    assert key in problem.render()


def test_text_is_not_a_number(read: Reader) -> None:
    for key in ("data.dedup.threshold", "train.lr", "model.depth", "seed", "model.tied"):
        assert fault(read, *[written(tuple(key.split(".")), '"0.8"')[0]]).code == "E104", key


def test_the_limits_themselves_are_allowed(read: Reader) -> None:
    recipe = read(BASE + "dedup = { threshold = 0.3, size = 20 }\n[model]\ncontext = 16\n[serve]\nport = 0\n").recipe
    assert (recipe.data.dedup.threshold, recipe.model.context, recipe.serve.port) == (0.3, 16, 0)


def test_what_is_missing_is_named(read: Reader) -> None:
    problems = faults(read, "[data]\nformat = 'text'\n")
    assert sorted((each.code, each.fields["key"]) for each in problems) == [("E103", "data.path"), ("E103", "task")]
    assert next(place(each) for each in problems if each.fields["key"] == "data.path") == (1, 1)


def test_two_lengths_are_one_too_many(read: Reader) -> None:
    problem = fault(read, BASE + '\n[train]\nsteps = 5\nbudget = "1min"\n')
    assert (problem.code, place(problem)) == ("E106", (6, 1))
    assert "budget, steps" in problem.render()


def test_all_faults_come_at_once(read: Reader) -> None:
    content = 'task = 3\n[data]\npth = "x"\nsection = 1\n[train]\nlr = nan\nschedule = "cosinus"\n[sytem]\n'
    problems = faults(read, content)
    got = {(each.code, *(place(each) if "recipe.toml:" in each.where else ())) for each in problems}
    assert got == {
        ("E104", 1, 1), ("E102", 3, 1), ("E103", 2, 1), ("E104", 4, 1), ("E104", 6, 1), ("E104", 7, 1), ("E102", 8, 1)
    }  # fmt: skip
    with pytest.raises(UserError) as raised:
        read(content)
    assert raised.value.render().count("error[E1") == 7
    assert raised.value.exit == 2


# --- files ---


def test_broken_toml_shows_the_line(read: Reader) -> None:
    problem = fault(read, 'task = "x"\n[data\npath = "a"\n')
    assert problem.code == "E107"
    assert place(problem)[0] == 2
    assert problem.evidence == ("[data",)


def test_a_key_twice_is_broken_toml(read: Reader) -> None:
    assert fault(read, 'task = "x"\ntask = "y"\n').code == "E107"


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        load_recipe(tmp_path / "nothing.toml")
    assert (raised.value.code, raised.value.exit) == ("E101", 2)


def test_a_recipe_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"task = '\xff\xfe'")
    with pytest.raises(UserError) as raised:
        load_recipe(tmp_path)
    assert raised.value.code == "E101"


def test_a_byte_order_mark_and_a_folder_are_fine(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("\ufeff" + BASE, encoding="utf-8")
    loaded = load_recipe(tmp_path)
    assert (loaded.recipe.data.path, loaded.name, loaded.base) == (["texts"], tmp_path.name, tmp_path)


# --- key=value ---


def test_overrides_replace_numbers_texts_and_lists(read: Reader) -> None:
    values = ["train.lr=1e-3", "model.depth=4", "model.tied=false", "tokenizer.vocab_size=auto", "finetune.tune=lora"]
    paths = ["data.path=other/folder", 'data.exclude=["a", "b"]', "finetune.data=chats.jsonl"]
    recipe = read(BASE, *values, *paths).recipe
    assert (recipe.train.lr, recipe.model.depth, recipe.model.tied) == (1e-3, 4, False)
    assert (recipe.data.path, recipe.data.exclude) == (["other/folder"], ["a", "b"])
    assert recipe.finetune
    assert (recipe.finetune.tune, recipe.finetune.data) == ("lora", ["chats.jsonl"])


@pytest.mark.parametrize("given", ["steps=7", "tokens=20k", "epochs=2", "budget=2min"])
def test_a_length_replaces_the_recipes_length(given: str, read: Reader) -> None:
    content = BASE + '[train]\nbudget = "9min"\n[pretrain]\nepochs = 3\n[finetune]\ndata = "x"\nsteps = 9\n'
    recipe = read(content, f"train.{given}").recipe
    name, value = given.split("=")
    lengths = {key: getattr(recipe.training("pretrain"), key) for key in ("budget", "tokens", "epochs", "steps")}
    kept = {key: str(each).removesuffix(".0") for key, each in lengths.items() if each is not None}
    assert kept == {name: value}
    assert recipe.training("finetune").steps == 9


def test_an_override_of_train_wins_over_pretrain(read: Reader) -> None:
    recipe = read(BASE + "[pretrain]\nlr = 0.2\n[finetune]\ndata = 'x'\nlr = 0.3\n", "train.lr=0.1").recipe
    assert (recipe.training("pretrain").lr, recipe.training("finetune").lr) == (0.1, 0.3)


def test_the_length_of_one_stage_is_replaced_alone(read: Reader) -> None:
    content = BASE + '[train]\nbudget = "9min"\n[finetune]\nderive = "python_functions"\nsteps = 9\n'
    recipe = read(content, "finetune.epochs=2").recipe
    assert recipe.training("pretrain").budget == "9min"
    assert (recipe.training("finetune").epochs, recipe.training("finetune").steps) == (2, None)


@pytest.mark.parametrize("override", ["train.lr", "=3", "task.name=x", "data.path.here=3"])
def test_an_override_of_the_wrong_form(override: str, read: Reader) -> None:
    problem = fault(read, BASE, override)
    assert (problem.code, problem.exit) == ("E105", 2)
    assert override in problem.render()


def test_faults_of_overrides_point_to_them(read: Reader) -> None:
    problems = faults(read, BASE, "train.lrr=3", "model.depth=-1", "train.budget=soon")
    assert {(each.code, each.where) for each in problems} == {
        ("E102", "train.lrr=3"), ("E104", "model.depth=-1"), ("E104", "train.budget=soon")
    }  # fmt: skip


def test_a_recipe_wrong_in_its_sections_stays_a_users_error(read: Reader) -> None:
    problem = fault(read, "pretrain = 3\n" + BASE, "train.steps=3")
    assert (problem.code, place(problem)) == ("E104", (1, 1))


# --- keys without effect ---

IDLE = {
    "train.weight_decay": '[train]\noptimizer = "adam"\nweight_decay = 0.1\n',
    "train.momentum": '[train]\noptimizer = "adamw"\nmomentum = 0.8\n',
    "pretrain.beta1": '[train]\noptimizer = "sgd"\n[pretrain]\nbeta1 = 0.8\n',
    "train.final_lr": '[train]\nschedule = "constant"\nfinal_lr = 0.1\n',
    "finetune.decay": "[finetune]\ndata = 'x'\ndecay = 0.2\n",
    "train.stop_early": "split = { valid = 0.0, test = 0.1 }\n[train]\nstop_early = 3\n",
    "finetune.stop_early": "[finetune]\ndata = 'x'\nstop_early = 3\nsplit = { valid = 0.0, test = 0.1 }\n",
    "columns, encoding": "[finetune]\nderive = 'same_rows'\nencoding = 'gb18030'\ncolumns = { text = 'x' }\n",
}


@pytest.mark.parametrize("key", IDLE)
def test_a_key_that_nothing_reads_is_refused(key: str, read: Reader) -> None:
    problem = fault(read, BASE + IDLE[key])
    assert (problem.code, problem.exit) == ("E106", 2)
    assert key in problem.render()


def test_a_shared_key_that_one_training_reads_is_fine(read: Reader, tmp_path: Path) -> None:
    loaded = read(BASE + "[train]\ndecay = 0.2\n[finetune]\nderive = 'same_rows'\n")
    (tmp_path / "danlu.toml").write_text(resolved(loaded, tmp_path), encoding="utf-8")
    assert load_recipe(tmp_path / "danlu.toml").recipe.training("pretrain").decay == 0.2


@pytest.mark.parametrize("type", ["bpe", "char"])
def test_a_vocabulary_holds_every_byte_and_the_control_tokens(type: str, read: Reader) -> None:
    from danlu.modalities.text import Text

    assert "259" in fault(read, BASE + f"[tokenizer]\ntype = '{type}'\nvocab_size = 258\n").render()
    assert Text.fit(["abc abc " * 9], type=type, vocab_size=259).vocab_size == 259


def test_rows_to_tune_on_are_read_as_they_say(read: Reader) -> None:
    content = BASE + "[finetune]\ndata = 'x'\nencoding = 'gb18030'\nformat = 'csv'\nclean = ['drop_empty']\n"
    data = read(content).recipe.reading()
    assert (data.path, data.encoding, data.format, data.clean) == (["x"], "gb18030", "csv", ["drop_empty"])


# --- what a stage is told ---


def test_a_stage_overrides_the_shared_section(read: Reader) -> None:
    recipe = read(BASE + "[train]\nlr = 0.1\nclip = 0.5\n[pretrain]\nlr = 0.2\n").recipe
    assert (recipe.training("pretrain").lr, recipe.training("pretrain").clip) == (0.2, 0.5)
    assert (recipe.training("finetune").lr, recipe.training("finetune").epochs) == (0.1, 3.0)


RECIPES = {
    "defaults": BASE,
    "tuned": BASE + '[train]\nlr = 0.01\ntokens = "20k"\n[pretrain]\nbudget = "90s"\nsample = "Es war"\n'
    '[finetune]\ndata = ["chats.jsonl"]\ntune = "last-2"\ncolumns = { prompt = "q" }\n[compress]\n',
    "adapted": BASE + '[finetune]\nderive = "python_functions"\nadapt = [{ kind = "lora", rank = 4 }]\n',
    "from a base": 'task = "instruction"\n[data]\npath = ["a.jsonl", "b"]\nlimit_mb = 2.5\n[model]\nbase = "../gpt"\n'
    "[train]\nepochs = 1.5\nlr = 0.003\n",
}  # fmt: skip


def graph(loaded: Loaded) -> list[Any]:
    return [(node.name, plain(node.config), dict(node.inputs)) for node in life(loaded.recipe)]


@pytest.mark.parametrize("name", RECIPES)
def test_the_saved_recipe_is_the_same_recipe(name: str, read: Reader, tmp_path: Path) -> None:
    loaded = read(RECIPES[name], "seed=5")
    folder = tmp_path / "runs" / "store" / "pretrain-1"
    folder.mkdir(parents=True)
    (folder / "danlu.toml").write_text(resolved(loaded, folder), encoding="utf-8")
    again = load_recipe(folder / "danlu.toml")
    assert graph(again) == graph(loaded)
    for section in ("data", "tokenizer", "model", "evaluate", "compress", "serve"):
        was, now = getattr(loaded.recipe, section), getattr(again.recipe, section)
        assert plain(now) == plain(was)
    paths = [(again.base / path).resolve() for path in again.recipe.data.path]
    assert paths == [(loaded.base / path).resolve() for path in loaded.recipe.data.path]
    assert again.runs.resolve() == loaded.runs.resolve()
    assert resolved(again, folder) == resolved(loaded, folder)


def test_the_saved_recipe_holds_every_default(read: Reader, tmp_path: Path) -> None:
    import tomllib

    table = tomllib.loads(resolved(read(BASE), tmp_path))
    assert table["model"]["context"] == 256
    assert table["pretrain"]["clip"] == 1.0
    assert table["data"]["dedup"] == {"threshold": 0.8, "ngram": "auto", "size": 0}


# --- languages ---


def test_every_fault_speaks_chinese(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", "zh")
    content = BASE + '[train]\nlr = -1\nbudget = "soon"\nsteps = 2\nschedule = "x"\ntokens = "many"\nstepz = 1\n'
    content += "[evaluate]\nngram = 1.5\n"
    problems = faults(read, content)
    assert {each.code for each in problems} == {"E102", "E104"}
    assert len(problems) == 6
    for problem in problems:
        first = problem.render().splitlines()[0]
        assert re.search("[一-鿿]", first), first
        assert not re.search(r"\b(must|or|such|as|only|input|should)\b", first, re.IGNORECASE), first
    lengths = fault(read, BASE + "[train]\nsteps = 1\nepochs = 2\n").render()
    assert "训练多久" in lengths


def test_choices_are_all_named(read: Reader) -> None:
    said = fault(read, BASE + '[train]\nschedule = "cosinus"\n').render()
    choices = get_args(Train.model_fields["schedule"].annotation)
    assert Train.model_fields["schedule"].annotation == Literal[choices]
    assert all(f"'{choice}'" in said for choice in choices)


def test_a_task_has_habits_that_a_recipe_overrules(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('task = "adversarial_image_generation"\n[data]\npath = "rows"\n', "utf-8")
    usual = load_recipe(path).recipe.training("pretrain")
    assert (usual.optimizer, usual.beta1, usual.schedule, usual.lr) == ("adam", 0.5, "constant", 2e-4)
    told = load_recipe(path, ["train.lr=1e-3", "pretrain.beta1=0.4"]).recipe.training("pretrain")
    assert (told.optimizer, told.beta1, told.lr) == ("adam", 0.4, 1e-3)


def test_a_base_that_is_tuned_is_not_pretrained(read: Reader) -> None:
    tuned = BASE.replace("language_modeling", "multiple_choice") + '[model]\nbase = "x"\n'
    assert "pretrain" in fault(read, tuned + "[pretrain]\nlr = 1e-5\n").render()
    assert read(tuned + "[train]\nlr = 1e-5\n").recipe.training("finetune").lr == 1e-5
