"""Lessons: both languages have one structure, all that they show is computed, and every medium shows all of it."""

import io
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from danlu import messages
from danlu.errors import UserError
from danlu.learn import cells, lesson, pages, source, tutorial, worked
from danlu.learn.cells import Run
from danlu.learn.lesson import Cell, Exercise, Figure, Lesson, Prose, lessons
from danlu.learn.reading import Reader
from danlu.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
ALL = pytest.mark.parametrize("of", lessons(), ids=lambda each: each.name)
LANGUAGE = pytest.mark.parametrize("language", messages.LANGUAGES)
WRITTEN_WITH = (3, 11)
LINE = 76  # columns of code and of what it prints, beside a margin of four


@pytest.fixture(autouse=True)
def speaking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = request.node.callspec.params.get("language", "en") if hasattr(request.node, "callspec") else "en"
    monkeypatch.setenv("DANLU_LANG", chosen)


def page(of: Lesson, language: str) -> str:
    messages.use(language)
    return of.page


# --- one structure in two languages ---


def structure(of: Lesson, language: str) -> Iterator[object]:
    """Kinds of blocks with their names; of prose, its headings, fences, tables, list items, links and values."""
    messages.use(language)
    for block in of.blocks:
        if isinstance(block, Prose):
            yield [line.split(" ")[0] for line in block.text.splitlines() if re.match(r"#+ |```|\||- |\d+\. ", line)]
            yield sorted(re.findall(r"\]\((.+?)\)", block.text)), sorted(re.findall(r"\{\{.+?\}\}", block.text))
        else:
            yield type(block).__name__, block.name


@ALL
def test_both_languages_have_one_structure(of: Lesson) -> None:
    english, chinese = list(structure(of, "en")), list(structure(of, "zh"))
    assert len(english) > 20
    assert english == chinese


@ALL
def test_the_chinese_page_is_chinese(of: Lesson) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`|<!--.*?-->|\]\(.*?\)", "", page(of, "zh"), flags=re.DOTALL)
    assert len(re.findall(r"[\u4e00-\u9fff]", prose)) > 3 * len(re.findall(r"[A-Za-z]{3,}", prose))
    assert not re.search(r"[\u4e00-\u9fff][,;:!?](\s|$)", prose), "half-width punctuation after Chinese"


# --- all that is shown is computed ---


@ALL
@LANGUAGE
def test_a_page_shows_every_cell_and_picture_once_in_order(of: Lesson, language: str, ran: dict[str, Run]) -> None:
    shown = [block.name for block in of.blocks if isinstance(block, Cell)]
    assert shown == list(of.code) == list(ran[of.name].printed)
    drawn = [block.name for block in of.blocks if isinstance(block, Figure)]
    assert drawn == list(ran[of.name].pictures)


@ALL
@LANGUAGE
def test_every_value_and_every_place_of_the_source_is_found(of: Lesson, language: str, ran: dict[str, Run]) -> None:
    for block in of.blocks:
        if isinstance(block, Prose):
            filled = lesson.filled(block.text, ran[of.name].values)
            assert "{{" not in filled
            assert all(place.text for place in source.places(filled))
    assert source.places(of.page), "a lesson leads to the source of the same at scale"


def test_a_place_in_the_source_is_the_definition() -> None:
    assert source.find("scratch.linear.Linear.forward").text.lstrip().startswith("def forward(self, x: Tensor)")
    assert source.find("learn.worked").first == 1
    with pytest.raises(LookupError):
        source.find("scratch.linear.Nothing")


@ALL
def test_code_and_output_fit_a_terminal_of_80_columns(of: Lesson, ran: dict[str, Run]) -> None:
    lines = [line for text in (*of.code.values(), *ran[of.name].printed.values()) for line in text.splitlines()]
    assert not [line for line in lines if cell_len(line) > LINE]


@LANGUAGE
def test_the_tutorials_in_the_repository_are_current(language: str, ran: dict[str, Run]) -> None:
    if sys.version_info[:2] != WRITTEN_WITH:
        pytest.skip(f"lessons 3 and 4 read Python's own library, and the pages show that of {WRITTEN_WITH}")
    folder = ROOT / "docs" / language / "tutorials"
    made = tutorial.pages(ran)
    assert {path.name for path in folder.iterdir()} == set(made)
    stale = [name for name, text in made.items() if not tutorial.agrees((folder / name).read_text("utf-8"), text)]
    assert not stale, f"make docs writes them again: {stale}"


@pytest.mark.parametrize(
    ("new", "same"),
    [
        ("loss 0.501 in 9.9 s, see a.py#L1-L2", True),
        ("loss 0.9 in 1.0 s, see a.py#L1-L2", False),
        ("lost 0.5 in 1.0 s, see a.py#L1-L2", False),
        ("loss 0.5 in 1.0 s, see b.py#L1-L2", False),
    ],
)
def test_pages_agree_but_for_rounding_and_times(new: str, same: bool) -> None:
    old = "loss 0.5 in 1.0 s, see a.py#L7-L9"
    assert tutorial.agrees(old, new) == same
    assert tutorial.renewed(old, new) == new


# --- every medium shows all of it ---


@ALL
@LANGUAGE
@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_all_code_and_output(
    of: Lesson, language: str, width: int, ran: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "run", lambda module, begun, ended: _again(ran[of.name], begun, ended))
    console = Console(file=io.StringIO(), width=width, emoji=False, highlight=False)
    Reader(of, console, wait=False).read()
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert max(map(cell_len, lines)) <= width
    wanted = [text for name in of.code for text in (of.code[name], ran[of.name].printed[name])]
    assert not {f"    {line}".rstrip() for text in wanted for line in text.splitlines()} - {*lines}
    assert not [line for line in lines if re.match("[，。、；：？！）]", line)], "a line begins with a comma"


def _again(run: Run, begun: cells.Watch, ended: cells.Watch) -> Run:
    """What the lesson did, told once more."""
    for name in run.printed:
        run.cell = name
        begun(run)
        ended(run)
    return run


class Links(HTMLParser):
    """What a page would fetch, and the text that it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.shown = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "img")
        self.asked += [str(value) for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.shown += data


@ALL
@LANGUAGE
def test_a_page_of_html_stands_alone_and_shows_everything(of: Lesson, language: str, ran: dict[str, Run]) -> None:
    made = pages.page(of, ran[of.name], lessons())
    links = Links()
    links.feed(made)
    assert set(links.asked) <= {"index.html", *map(pages.file_name, lessons())}
    assert "url(" not in made and "@import" not in made and "default-src 'none'" in made
    for name, code in of.code.items():
        assert code in links.shown
        assert ran[of.name].printed[name] in links.shown
    assert made.count("<svg") == len(ran[of.name].pictures)
    assert made.count('class="exercise"') == len(of.exercises)


@ALL
@LANGUAGE
def test_pictures_are_well_formed_and_have_a_form_for_terminals(of: Lesson, language: str, ran: dict[str, Run]) -> None:
    for drawn in ran[of.name].pictures.values():
        assert ElementTree.fromstring(drawn.svg()).tag == "svg"
        assert "nan" not in drawn.svg()
        assert 1 < len(drawn.text(76).splitlines()) < 40
        assert max(map(cell_len, drawn.text(76).splitlines())) <= 80


def test_what_is_written_is_one_page_per_lesson_and_a_list(tmp_path: Path) -> None:
    made = pages.write(tmp_path, lessons()[:1])
    assert [path.name for path in made] == ["1-neuron.html", "index.html"]
    assert 'href="1-neuron.html"' in (tmp_path / "index.html").read_text("utf-8")


def test_a_lesson_that_is_not_there_is_said() -> None:
    assert lesson.find("1") == lesson.find("neuron")
    with pytest.raises(UserError) as caught:
        lesson.find("99")
    assert caught.value.code == "E130" and "1 neuron" in caught.value.render()


# --- the numbers of lesson 1 ---


def test_lesson_1_computes_the_worked_example(ran: dict[str, Run]) -> None:
    values, f = ran["neuron"].values, worked.forward()
    g = worked.backward(f)
    for name, ours in {"z1": f.z1, "a1": f.a1, "z2": f.z2, "p": f.p, "loss": f.loss}.items():
        np.testing.assert_allclose(values[name], ours, rtol=1e-12)
    for name, ours in {"dW1": g.w1, "db1": g.b1, "dW2": g.w2, "db2": g.b2, "da1": g.a1}.items():
        np.testing.assert_allclose(values[name], ours, rtol=1e-12)
    assert ran["neuron"].printed["drawing"].count("✗") == sum(line.slip for line in worked.drawing()) == 8


@ALL
def test_a_lesson_ends_in_two_to_four_exercises(of: Lesson) -> None:
    found = [block for block in of.blocks if isinstance(block, Exercise)]
    assert 2 <= len(found) <= 4
    assert all(each.task and each.why for each in found)


@LANGUAGE
def test_the_recipes_in_lessons_load(language: str, tmp_path: Path) -> None:
    (tmp_path / "my_texts").mkdir()
    found = [code for of in lessons() for code in re.findall(r"```toml\n(.*?)```", page(of, language), re.DOTALL)]
    assert len(found) == 2
    for code in found:
        whole = code if "task" in code else f'task = "language_modeling"\n[data]\npath = "my_texts/"\n{code}'
        (tmp_path / "recipe.toml").write_text(whole, "utf-8")
        assert load_recipe(tmp_path / "recipe.toml").recipe.task == "language_modeling"


# --- what the lessons claim ---


def test_over_fitting_is_seen_and_every_cure_ends_lower(ran: dict[str, Run]) -> None:
    values = ran["loop"].values
    final = {name: held[-1][1] for name, held in values["cures"].items()}
    assert values["best"][1] < 0.9 * final["nothing"]
    assert all(final[name] < final["nothing"] for name in ("L1", "L2", "dropout", "augment"))
    assert values["curves"]["lr = 1.0"][-1][1] < values["curves"]["lr = 0.1"][-1][1] < 0.5
    assert values["curves"]["lr = 3.0"][-1][1] > 2


def test_danlu_finds_the_similarity_computed_by_hand(ran: dict[str, Run]) -> None:
    assert "a b 0.60" in ran["cleaning"].printed["danlu"]
    assert ran["cleaning"].values["exact"] == pytest.approx(9 / 15)


def test_the_tokenizer_by_hand_learns_what_the_library_learns(ran: dict[str, Run]) -> None:
    """On words without ties, against an independent implementation."""
    from tokenizers import Tokenizer, models, trainers

    values = ran["tokenizer"].values
    words = {"aaab": 9, "aab": 5, "cab": 2}
    learned, _ = values["learn"](words, 2)
    theirs = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=5, show_progress=False)
    theirs.train_from_iterator([word for word, times in words.items() for _ in range(times)], trainer)
    assert {a + b for a, b in learned} == {token for token in theirs.get_vocab() if len(token) > 1}


def test_the_attending_network_is_right_and_its_shortcut_is_shown(ran: dict[str, Run]) -> None:
    values, printed = ran["attention"].values, ran["attention"].printed
    assert "100% of held-out" in printed["model"]
    assert "street 0.9" in printed["swap"]
    assert printed["both"].count("animal 1.00") + printed["both"].count("animal 0.9") == 2
    assert values["words"][values["answer"][values["ours"][0]]] == "animal"
    assert printed["same"].count("True") == 2
