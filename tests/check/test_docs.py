"""The reference pages in the repository are what the code says now; `make docs` writes them again."""

from danlu import messages
from docs.generate import WORDS, pages
from tests.check.tree import ROOT


def test_the_reference_pages_are_current() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in pages().items() if path.read_text("utf-8") != text]
    assert not stale, f"make docs writes them again: {stale}"


def test_both_languages_have_the_same_words() -> None:
    english, chinese = WORDS["en"], WORDS["zh"]
    assert set(english) | {"description"} == set(chinese)
    assert set(english["section"]) == set(chinese["section"])


def test_no_translated_description_is_left_over() -> None:
    folders = (ROOT / "src/danlu/config", ROOT / "src/danlu/tasks")
    said = "".join(path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py"))
    assert not [english for english in WORDS["zh"]["description"] if english not in said]


def test_the_language_in_force_is_left_as_it_was() -> None:
    before = messages.language()
    pages()
    assert messages.language() == before


def test_each_decision_has_a_number_of_its_own() -> None:
    pages_of = {page.name: page.read_text("utf-8") for page in (ROOT / "docs" / "decisions").glob("*.md")}
    numbers = [name[:4] for name in pages_of]
    assert len({*numbers}) == len(numbers)
    assert [name for name, page in pages_of.items() if not page.startswith(f"# {name[:4]} · ")] == []
