"""BLEU, chrF and ROUGE beside the figures of the libraries that made them known."""

from itertools import combinations

import numpy as np
import pytest

from danlu.metrics import rouge, translation

FOUND = ["The dog bit the man.", "It was not unexpected.", "A man, 3.5 m tall, was first-class; right?", "", "no"]
WANTED = ["The dog had bit the man.", "No one was surprised.", "The man (3.5 m) was 1st-class, right?", "x", "no way"]
FOUND_ZH = ["我喜欢吃苹果。", "今天天气很好", "他2024年去了北京，AI公司"]
WANTED_ZH = ["我很喜欢苹果。", "今天的天气真好。", "2024年他去北京的AI公司"]
RANDOM = np.random.Generator(np.random.PCG64(5))
TALK = [" ".join(RANDOM.choice(["a", "b", "c", "d,", "e.", "7", "-", "&amp;"], 9)) for _ in range(60)]
CASES = [  # and what sacrebleu 2.6.0 gives: BLEU, chrF
    (FOUND, WANTED, "13a", 18.628571444053843, 41.27151373556534),
    (FOUND_ZH, WANTED_ZH, "zh", 18.292537234430668, 30.190285290886138),
    (TALK[:30], TALK[30:], "13a", 4.4201069548090395, 19.787056290696068),
]


@pytest.mark.parametrize(("found", "wanted", "cut", "bleu", "chrf"), CASES)
def test_figures_are_those_of_sacrebleu(
    found: list[str], wanted: list[str], cut: str, bleu: float, chrf: float
) -> None:
    ours = translation.sample(found, wanted).figures()
    assert float(ours["bleu"]) == pytest.approx(bleu, abs=1e-9)
    assert float(ours["chrf"]) == pytest.approx(chrf, abs=1e-9)


@pytest.mark.parametrize(("found", "wanted", "cut", "bleu", "chrf"), CASES)
def test_the_figures_written_here_are_the_library_s(
    found: list[str], wanted: list[str], cut: str, bleu: float, chrf: float
) -> None:
    library = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    assert library.corpus_bleu(found, [wanted], tokenize=cut).score == pytest.approx(bleu, abs=1e-9)
    assert library.corpus_chrf(found, [wanted]).score == pytest.approx(chrf, abs=1e-9)
    for one, other in zip(found, wanted, strict=True):
        assert translation.chrf(one, other) == pytest.approx(library.sentence_chrf(one, [other]).score, abs=1e-9)


def test_nothing_and_everything() -> None:
    assert {name: float(each) for name, each in translation.sample(WANTED, WANTED).figures().items()} == {
        "bleu": pytest.approx(100), "chrf": pytest.approx(100)
    }  # fmt: skip
    assert [float(each) for each in translation.sample([""], ["a b c d e"]).figures().values()] == [0, 0]
    low, high = translation.sample(FOUND, WANTED).intervals(200)["chrf"]
    assert low < float(translation.sample(FOUND, WANTED).figures()["chrf"]) < high


def test_the_longest_common_subsequence_is_that_of_all_subsequences() -> None:
    for _ in range(60):
        one, other = (RANDOM.choice(["a", "b", "c"], RANDOM.integers(1, 8)).tolist() for _ in range(2))
        ways = [{tuple(each[at] for at in places) for size in range(len(each) + 1)
                 for places in combinations(range(len(each)), size)} for each in (one, other)]  # fmt: skip
        assert rouge.common(one, other) == max(map(len, ways[0] & ways[1]))


def test_rouge_counts_words_and_characters() -> None:
    found = rouge.scores(
        [("The cat sat on the mat.", "the cat was on a mat"), ("猫坐在垫子上", "猫在垫子上"), ("", "a")]
    )
    assert found["rouge_1"].tolist() == pytest.approx([200 * 4 / 12, 200 * 5 / 11, 0])
    assert found["rouge_2"].tolist() == pytest.approx([200 * 1 / 10, 200 * 3 / 9, 0])
    assert found["rouge_l"].tolist() == pytest.approx([200 * 4 / 12, 200 * 5 / 11, 0])
