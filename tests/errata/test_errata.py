"""The programs of the errata print what stands below them, and both languages say the same things."""

import re
from pathlib import Path

import pytest

from docs.run import BLOCK, DOCS, FOLDER, ITEM, anchor, blocks, filled, indexes, run, written

VERDICTS = {"Wrong": "错", "Imprecise": "不准确", "Incomplete": "不完整", "Outdated": "过时", "Right": "对"}
ENGLISH = sorted((DOCS / "en" / FOLDER).glob("[0-9]*.md"))


LINK = re.compile(r"\]\((\d-[\w-]+\.md)#([^)]+)\)")


def name(path: Path) -> str:
    return f"{path.parts[-4]}-{path.stem}"


def chinese(path: Path) -> Path:
    return DOCS / "zh" / FOLDER / path.name


@pytest.mark.slow
@pytest.mark.parametrize("path", ENGLISH, ids=lambda path: path.stem)
def test_programs_print_what_stands_below_them(path: Path) -> None:
    pytest.importorskip("sklearn", reason="the bundled digits need scikit-learn: pip install 'danlu[learn]'")
    pytest.importorskip("transformers", reason="BERT is compared in transformers: pip install 'danlu[dev]'")
    made = written(path)
    assert set(made) == {path, chinese(path)}
    for each, text in made.items():
        assert each.read_text("utf-8") == text, f"python docs/run.py writes {each.name} again"


def test_the_index_lists_every_item() -> None:
    for path, text in indexes().items():
        assert path.read_text("utf-8") == text, "python docs/run.py writes it again"


@pytest.mark.parametrize("path", ENGLISH, ids=lambda path: path.stem)
def test_both_languages_judge_alike(path: Path) -> None:
    one, other = (ITEM.findall(page.read_text("utf-8")) for page in (path, chinese(path)))
    assert one and len(one) == path.read_text("utf-8").count("\n## "), "every item begins with a verdict"
    assert [(title.split()[0], VERDICTS[verdict]) for title, verdict in one] == [
        (title.split()[0], verdict) for title, verdict in other
    ]


@pytest.mark.parametrize("path", [*ENGLISH, *map(chinese, ENGLISH)], ids=name)
def test_every_item_has_a_program_or_a_source(path: Path) -> None:
    for item in path.read_text("utf-8").split("\n## ")[1:]:
        assert "```python" in item or "](https://" in item or LINK.search(item), item.splitlines()[0]


@pytest.mark.parametrize("path", [*ENGLISH, *map(chinese, ENGLISH)], ids=name)
def test_links_between_items_lead_somewhere(path: Path) -> None:
    for page, place in LINK.findall(path.read_text("utf-8")):
        assert place in {anchor(title) for title, _ in ITEM.findall((path.parent / page).read_text("utf-8"))}


QUOTED = re.compile(r'`[^`]*`|"[^"]*"|\$[^$]*\$|\(https[^)]*\)|^#.*$|§\S+|[Ss]ections? [\d.]+|[\d.]+ 节', re.MULTILINE)


@pytest.mark.parametrize("path", [*ENGLISH, *map(chinese, ENGLISH)], ids=name)
def test_numbers_between_the_programs_come_from_them(path: Path) -> None:
    """Decimals and thousands in the prose stand in the programs or in what they print; quotations are the articles'."""
    text = path.read_text("utf-8")
    shown = "".join(match[0] for match in BLOCK.finditer(text)).replace(",", "").replace("_", "")
    prose = QUOTED.sub("", BLOCK.sub("", text))
    assert [number for number in re.findall(r"\d+\.\d+|\d+,\d{3}", prose) if number.replace(",", "") not in shown] == []


def test_a_wrong_line_below_a_program_is_found() -> None:
    page = "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    assert filled(page, blocks(page), run(blocks(page))) == page.replace("3", "2")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        run(["1 / 0\n"])
    with pytest.raises(ValueError, match="blocks for"):
        filled("", ["print(1)\n"], ["1\n"])
