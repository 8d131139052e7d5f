"""Duplicates: real copies, planted copies by similarity, and none where there are none."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import pytest

from danlu.data import dedup

Pairs = set[tuple[str, str]]
_PLANTED = 1000  # per language


def _found(found: dedup.Duplicates) -> Pairs:
    return {(a, b) for a, b, _ in found.pairs}


# --- real data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 1000])
def test_the_planted_articles_are_found_and_nothing_else(shared_data: Path, size: int) -> None:
    folder = shared_data / "minhash_articles"
    rows = [line.split(" ", 1) for line in (folder / f"articles_{size}.train").read_text("utf-8").splitlines()]
    truth = {
        tuple(sorted(line.split())) for line in (folder / f"articles_{size}.truth").read_text("utf-8").splitlines()
    }
    ids, texts = zip(*rows, strict=True)
    assert _found(dedup.duplicates(ids, texts, threshold=0.5)) == truth


def test_two_editions_of_chinese_poems_are_matched_as_in_the_truth_file(shared_data: Path) -> None:
    folder = shared_data / "zh_neardup_poems"
    with gzip.open(folder / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        poems = [json.loads(line) for line in lines]
    rows = [line.split("\t") for line in (folder / "truth.tsv").read_text("utf-8").splitlines()[1:]]
    found = dedup.duplicates([poem["id"] for poem in poems], [poem["text"] for poem in poems], threshold=0.5)
    truth = {(a, b): float(value) for a, b, value in rows}
    assert _found(found) == truth.keys()
    # the truth file counts Chinese characters alone; letters and rare signs in a few poems count here too
    assert sum(abs(value - truth[a, b]) > 0.001 for a, b, value in found.pairs) <= 8


# --- planted pairs -----------------------------------------------------------------------------------


def _words(generator: random.Random) -> list[str]:
    return ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(3, 9))) for _ in range(5000)]


def _hanzi(generator: random.Random) -> list[str]:
    return [chr(code) for code in generator.sample(range(0x4E00, 0x9FA5), 3000)]


def _edited(tokens: Sequence[str], share: float, vocabulary: Sequence[str], generator: random.Random) -> list[str]:
    """Replaced, inserted, deleted and moved tokens: `share` of the text is touched."""
    edited = list(tokens)
    for _ in range(round(share * len(tokens))):
        place = generator.randrange(len(edited))
        match generator.choice(["replace", "insert", "delete", "move"]):
            case "replace":
                edited[place] = generator.choice(vocabulary)
            case "insert":
                edited.insert(place, generator.choice(vocabulary))
            case "delete":
                del edited[place]
            case "move":
                block = edited[place : place + 12]
                del edited[place : place + 12]
                target = generator.randrange(len(edited))
                edited[target:target] = block
    return edited


def _jaccard(a: Sequence[str], b: Sequence[str], size: int) -> float:
    """Written anew, on the tokens themselves: the oracle."""
    left, right = ({tuple(text[i : i + size]) for i in range(len(text) - size + 1)} for text in (a, b))
    return len(left & right) / len(left | right)


def _planted(
    vocabulary: Sequence[str], size: int, glue: str, generator: random.Random
) -> tuple[list[str], list[str], dict[tuple[str, str], float]]:
    """Ids, texts, and the planted pairs with their true similarity, spread over 0.5 to 0.95."""
    ids, texts, truth = [], [], {}
    while len(truth) < _PLANTED:
        tokens = generator.choices(vocabulary, k=generator.randint(60, 240))
        copy = _edited(tokens, generator.uniform(0.005, 0.3 / size), vocabulary, generator)
        likeness = _jaccard(tokens, copy, size)
        if 0.5 <= likeness <= 0.95:
            pair = (f"{len(truth):05d}a", f"{len(truth):05d}b")
            truth[pair] = likeness
            ids += pair
            texts += [glue.join(tokens), glue.join(copy)]
    return ids, texts, truth


@pytest.mark.parametrize(
    ("vocabulary", "size", "glue"), [(_words, 3, " "), (_hanzi, 2, "")], ids=["english", "chinese"]
)
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_recall_of_planted_pairs_by_similarity(
    vocabulary: Callable[[random.Random], list[str]], size: int, glue: str, threshold: float
) -> None:
    generator = random.Random(20)
    ids, texts, truth = _planted(vocabulary(generator), size, glue, generator)
    found = dedup.duplicates(ids, texts, threshold=threshold)
    assert found.size == size
    assert {(a, b): value for a, b, value in found.pairs} == pytest.approx({p: truth[p] for p in _found(found)})
    planted, hit = Counter(), Counter()
    for pair, likeness in truth.items():
        if likeness >= threshold:
            planted[int(likeness * 10)] += 1
            hit[int(likeness * 10)] += pair in _found(found)
    assert all(planted[tenth] >= 30 for tenth in range(int(threshold * 10), 10))
    recall = {tenth: hit[tenth] / planted[tenth] for tenth in planted}
    assert all(share >= 0.99 for share in recall.values())


@pytest.mark.parametrize("vocabulary", [_words, _hanzi])
def test_unrelated_texts_are_never_paired(vocabulary: Callable[[random.Random], list[str]]) -> None:
    generator = random.Random(7)
    words = vocabulary(generator)
    texts = [" ".join(generator.choices(words, k=100)) for _ in range(2000)]
    assert dedup.duplicates([str(number) for number in range(2000)], texts, threshold=0.5).pairs == []


# --- properties --------------------------------------------------------------------------------------


def test_one_and_eight_partitions_give_the_same() -> None:
    generator = random.Random(3)
    ids, texts, _ = _planted(_words(generator), 3, " ", generator)
    texts[4], texts[9] = texts[0], texts[0] + "\n"
    one, eight = (dedup.duplicates(ids, texts, threshold=0.6, partitions=count) for count in (1, 8))
    assert one == eight
    order = list(range(len(ids)))
    generator.shuffle(order)
    assert dedup.duplicates([ids[i] for i in order], [texts[i] for i in order], threshold=0.6) == one


def test_the_smallest_id_of_a_chain_stays() -> None:
    words = [f"w{number}" for number in range(100)]
    texts = [" ".join(words[start : start + 80]) for start in (0, 8, 16)]  # the ends are less alike than neighbours
    found = dedup.duplicates(["c", "b", "a"], texts, threshold=0.8)
    assert _found(found) == {("a", "b"), ("b", "c")}
    assert found.drop == {"b": "a", "c": "a"}


def test_exact_copies_are_told_from_near_ones() -> None:
    text = " ".join(f"w{number}" for number in range(50))
    found = dedup.duplicates(["1", "2", "3"], [text, text.replace(" ", "\n "), text + " more"], threshold=0.8)
    assert found.exact == {"2"}
    assert found.drop == {"2": "1", "3": "1"}
    assert _found(found) == {("1", "2"), ("1", "3"), ("2", "3")}


def test_a_threshold_of_one_drops_equal_texts_only() -> None:
    text = " ".join(f"w{number}" for number in range(500))
    assert dedup.duplicates(["1", "2", "3"], [text, text, text + " x"], threshold=1.0).drop == {"2": "1"}


def test_texts_shorter_than_a_shingle_are_compared_whole() -> None:
    texts = ["yes", "no", "Yes!", "", "", "!!!", "???", "好", "好的"]
    found = dedup.duplicates([str(n) for n in range(9)], texts, threshold=0.8)
    assert found.drop == {"2": "0", "4": "3"}  # signs alone are no likeness; only the empty ones are equal


def test_a_crowd_of_copies_becomes_one_cluster() -> None:
    base = " ".join(f"w{number}" for number in range(200))
    ids = [f"{number:03d}" for number in range(300)]
    found = dedup.duplicates(ids, [f"{base} x{number}" for number in ids], threshold=0.8)
    assert found.clusters == [ids]


def test_components_are_those_of_a_plain_search() -> None:
    generator = random.Random(5)
    nodes = [f"{number:02d}" for number in range(60)]
    edges = [pair for pair in combinations(nodes, 2) if generator.random() < 0.02]
    expected, left = [], {node for edge in edges for node in edge}
    while left:
        group, frontier = set(), {min(left)}
        while frontier:
            group |= frontier
            frontier = {b for edge in edges for a, b in (edge, edge[::-1]) if a in frontier} - group
        expected.append(sorted(group))
        left -= group
    assert dedup.components(edges) == sorted(expected)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_miss_at_most_one_in_a_thousand_at_the_threshold(threshold: float) -> None:
    bands, rows = dedup.bands_and_rows(threshold)
    assert (1 - threshold**rows) ** bands <= 0.001
    assert bands * rows <= 256


def test_nothing_comes_of_nothing() -> None:
    assert dedup.duplicates([], []) == dedup.Duplicates()


def test_words_are_words_whatever_the_script() -> None:
    """Asked for words, a run of unspaced characters is one word, and three words are a shingle."""
    poem, other = "床前明月光 疑是地上霜 举头望明月 低头思故乡", "床前明月光 疑是地上霜 举头望山月 低头思故乡"
    by_word = dedup.duplicates(["a", "b"], [poem, other], threshold=0.4, ngram="word")
    by_character = dedup.duplicates(["a", "b"], [poem, other], threshold=0.4)
    assert (by_word.size, by_word.pairs) == (3, [])
    assert (by_character.size, len(by_character.pairs)) == (2, 1)
    words, changed = [[f"字{n}词" for n in range(40)] for _ in range(2)]
    changed[-1] = "别"
    found = dedup.duplicates(["a", "b"], [" ".join(words), " ".join(changed)], threshold=0.8, ngram="word")
    assert found.pairs == [("a", "b", pytest.approx(37 / 39))]  # 38 shingles each, of which one differs
