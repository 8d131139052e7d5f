"""What an explanation looks like: in a terminal, as JSON, as a page, in a notebook, in both languages."""

import io
import json
import re
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from danlu import AutoModel, cli, messages
from danlu.config import Serve
from danlu.explain import explain
from danlu.modalities.modality import Word
from danlu.modalities.text import Text
from danlu.modalities.words import merged
from danlu.model import Model
from danlu.serve.run import background
from tests.api import bert
from tests.serve.tiny import CORPUS

pytestmark = pytest.mark.usefixtures("steady")
SENTENCE = "it is the ship, the queen."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert.classifier(tmp_path_factory.mktemp("explained") / "model")


def test_the_command_tells_words_and_writes_a_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", str(folder), SENTENCE, "--page", str(tmp_path / "why.html")]) == 0
    said = capsys.readouterr().out
    assert "integrated gradients" in said and "Attention is not explanation" in said
    assert "\x1b" not in said, "colours are for terminals"
    written = (tmp_path / "why.html").read_text("utf-8")
    assert not re.search(r"https?://", written)
    assert written.count("<svg") == 1 and 'class="c3"' in written


def test_the_command_gives_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", str(folder), SENTENCE, "--target", "LABEL_2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["explained"] == "LABEL_2"
    parts = sum(row["gradients"] for row in found["words"])
    assert parts == pytest.approx(found["number"] - found["blank"] + found["gap"], abs=1e-4)
    assert [row["word"] for row in found["words"]][:5] == ["it", "is", "the", "ship", ","]
    assert set(found["deletion"]["share"]) == {"gradients", "attention", "random"}


def test_the_command_speaks_chinese(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert cli.main(["explain", str(folder), SENTENCE, "--lang", "zh"]) == 0
        assert "注意力不是解释" in capsys.readouterr().out
        assert cli.main(["explain", str(folder), " ", "--lang", "zh"]) == 2
        assert "一个词也没有" in capsys.readouterr().err
    finally:
        messages.use("en")


def test_python_shows_it_and_a_notebook_colours_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = AutoModel.from_pretrained(folder)
    found = model.explain(SENTENCE)
    found.show()
    assert "ship" in capsys.readouterr().out
    html = found._repr_html_()
    assert html.count("<span") == 2 * sum(not word.fixed for word in found.words), "by both methods"
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, color_system="truecolor", width=100).print(found.rendered())
    assert "\x1b[30;48;2;" in screen.getvalue()


def test_the_text_of_users_is_no_html(folder: Path, tmp_path: Path) -> None:
    found = AutoModel.from_pretrained(folder).explain(SENTENCE)
    spoken = replace(found, name="<i>", words=[Word("<script>", word.places, word.fixed) for word in found.words])
    spoken.save(tmp_path / "why.html")
    for html in (spoken._repr_html_(), (tmp_path / "why.html").read_text("utf-8")):
        assert "&lt;script&gt;" in html and "<script" not in html
        assert "<i><" not in html


def test_a_text_does_not_steer_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AutoModel.from_pretrained(folder).explain("ship \x1b[2J queen").show()
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("wordpiece", "quickly jumping, foxes", ["quickly", "jumping", ",", "foxes"]),
        ("bpe", "The quickly jumping foxes 炼丹。", ["The", "quickly", "jumping", "foxes"]),
        ("char", "two words 炼丹", ["two", "words", "炼", "丹"]),
    ],
)
def test_pieces_are_put_together_to_words(kind: str, text: str, words: list[str]) -> None:
    processor = Text.fit(CORPUS, type=kind, vocab_size=400)
    ids = processor.encode(text)
    found = processor.words({"input_ids": [processor.end_id, *ids, processor.end_id]})
    assert [word.fixed for word in found] == [True, *[False] * (len(found) - 2), True]
    assert [word.text.strip() for word in found[1:-1]][: len(words)] == words
    assert [place for word in found for place in word.places] == list(range(len(ids) + 2)), "each token once"
    assert len(ids) > len(words), "some words are of several tokens"


def test_a_character_of_several_tokens_is_one_word() -> None:
    tokens: list[Any] = [(b"\xe7\x82", False, None), (b"\xbc", True, None), ("丹".encode(), False, None)]
    assert merged(tokens) == [Word("炼", (0, 1)), Word("丹", (2,))]


def test_help_is_there_in_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    for language, said in (("en", "rests on"), ("zh", "依据")):
        try:
            with pytest.raises(SystemExit):
                cli.main(["explain", "--help", "--lang", language])
        finally:
            messages.use("en")
        assert said in capsys.readouterr().out


def test_the_server_explains(folder: Path) -> None:
    model = Model.from_pretrained(folder)
    expected = explain(model, {"text": SENTENCE}, "LABEL_1").table()
    with background(model, "mine", Serve(port=0)) as url:

        def ask(**wish: Any) -> tuple[int, Any]:
            head = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{url}/explain", json.dumps(wish).encode(), head)
            try:
                with urllib.request.urlopen(request) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        code, found = ask(text=SENTENCE, target="LABEL_1")
        assert (code, found.pop("model")) == (200, "mine")
        assert found["explained"] == "LABEL_1"
        assert found == expected, "the same code, the same numbers"
        assert ask(text=" ")[0] == 400
        assert ask(text=SENTENCE, target="nothing")[0] == 400
        code, refused = ask(text=[SENTENCE, SENTENCE])
        assert code == 400 and "one row" in json.dumps(refused)
