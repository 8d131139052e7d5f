"""Generation: the cache changes nothing, rows do not touch each other, sampling follows its distribution."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from danlu.models import family
from danlu.models.architecture import Architecture, build
from danlu.nn.cache import Cache
from danlu.nn.generate import Sampling, generate, sample, score
from danlu.nn.network import Network

VOCAB, LENGTH = 61, 96
GREEDY = Sampling(temperature=0.0, max_tokens=64)


def architecture(name: str) -> Architecture:
    if name == "gpt2":
        return family("gpt2").preset(VOCAB, LENGTH, 2, width=48, heads=3)
    plain = family("gpt").preset(VOCAB, LENGTH, 2, width=48, heads=4, kv_heads=2, head_dim=16)
    return replace(plain, core=replace(plain.core, window=(5, 0))) if name == "windowed" else plain


@pytest.fixture(params=["qwen3", "gpt2", "windowed"])
def network(request: pytest.FixtureRequest) -> Network:
    made = build(architecture(request.param), torch.Generator().manual_seed(5)).double().eval()
    for p in made.parameters():
        if p.ndim > 1:
            p.data *= 3  # away from uniform logits, whose order is rounding
    return made


@torch.no_grad()
def recomputed(network: Network, prompt: list[int], count: int) -> list[int]:
    """Greedy without a cache."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(network({"input_ids": torch.tensor([ids])})[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("form", ["sdpa", "written"])
def test_greedy_with_a_cache_is_greedy_without(network: Network, form: str) -> None:
    network.core.attention_form = form
    prompt = [3, 1, 4, 1, 5, 9]
    expected = recomputed(network, prompt, 64)
    assert len(set(expected)) > 3
    assert list(generate(network, prompt, GREEDY, end_ids=())) == expected


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_says_what_its_rows_say_alone(network: Network, side: str) -> None:
    prompts = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5]]
    width = max(map(len, prompts))
    ids, segments = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), None) if side == "left" else slice(0, len(prompt))
        ids[row, place], segments[row, place] = torch.tensor(prompt), 1
    cache = Cache(network.core.config, 3, LENGTH, torch.float64)
    last = [-1] * 3 if side == "left" else [len(prompt) - 1 for prompt in prompts]
    with torch.no_grad():
        chosen = network({"input_ids": ids, "segment_ids": segments}, cache)[range(3), last].argmax(-1)
        made = [chosen]
        for _ in range(63):
            made.append(network({"input_ids": made[-1][:, None]}, cache)[:, -1].argmax(-1))
    for row, prompt in enumerate(prompts):
        assert torch.stack(made)[:, row].tolist() == recomputed(network, prompt, 64)


def test_slots_are_taken_freed_and_mixed(network: Network) -> None:
    """Rows may be any slots in any order, at different lengths; a freed slot holds nothing of its past."""
    cache = Cache(network.core.config, 4, LENGTH, torch.float64)

    @torch.no_grad()
    def read(slots: list[int], rows: list[list[int]]) -> Tensor:
        batch = {"input_ids": torch.tensor(rows), "slots": torch.tensor(slots)}
        return network(batch, cache)[:, -1]

    read([2], [[7, 7, 7, 7, 7, 7]])
    cache.free(2)
    read([2], [[3, 1, 4]])
    read([0], [[9, 2]])
    mixed = read([2, 0], [[5], [6]])
    with torch.no_grad():
        for row, whole in enumerate(([3, 1, 4, 5], [9, 2, 6])):
            alone = network({"input_ids": torch.tensor([whole])})[0, -1]
            assert (mixed[row] - alone).abs().max() <= 1e-12
    assert cache.lengths.tolist() == [3, 0, 4, 0]


def test_a_full_cache_is_refused(network: Network) -> None:
    cache = Cache(network.core.config, 1, 4, torch.float64)
    with torch.no_grad():
        network({"input_ids": torch.tensor([[1, 2, 3, 4]])}, cache)
        with pytest.raises(ValueError, match="holds 4 tokens"):
            network({"input_ids": torch.tensor([[5]])}, cache)


def test_packed_documents_do_not_see_each_other(network: Network) -> None:
    one, other = [3, 1, 4, 1], [5, 9, 2, 6, 5]
    packed = {"input_ids": torch.tensor([one + other]), "segment_ids": torch.tensor([[1] * 4 + [2] * 5])}
    for form in ("sdpa", "written"):
        network.core.attention_form = form
        with torch.no_grad():
            together = network(packed)[0]
            alone = [network({"input_ids": torch.tensor([ids])})[0] for ids in (one, other)]
        assert (together - torch.cat(alone)).abs().max() <= 1e-12


def test_generation_ends(network: Network) -> None:
    made = list(generate(network, [3, 1, 4], GREEDY, end_ids=()))
    end = made[5]
    assert list(generate(network, [3, 1, 4], GREEDY, end_ids={end})) == made[: made.index(end)]
    assert len(list(generate(network, [3], replace(GREEDY, max_tokens=3), end_ids=()))) == 3


def test_score_is_the_log_probability_of_each_token(network: Network) -> None:
    ids = [3, 1, 4, 1, 5, 9]
    with torch.no_grad():
        expected = network({"input_ids": torch.tensor([ids])})[0].log_softmax(-1)
    assert (score(network, ids) - expected[range(5), ids[1:]]).abs().max() <= 1e-12


# --- sampling ---


def drawn(logits: list[float], sampling: Sampling, count: int = 4000, history: tuple[int, ...] = ()) -> Tensor:
    """How often each id came, as a share."""
    generator = torch.Generator().manual_seed(11)
    rows = torch.tensor([logits]).repeat(count, 1)
    ids = sample(rows, [sampling] * count, [history] * count, [generator] * count)
    return torch.bincount(ids, minlength=len(logits)) / count


LOGITS = [2.0, 0.5, 1.0, -1.0, 0.0]


def expected_shares(kept: list[int], temperature: float = 1.0) -> Tensor:
    masked = torch.full((len(LOGITS),), float("-inf"))
    masked[kept] = torch.tensor(LOGITS)[kept] / temperature
    return masked.softmax(-1)


@pytest.mark.parametrize(
    ("sampling", "kept", "temperature"),
    [
        (Sampling(), [0, 1, 2, 3, 4], 1.0),
        (Sampling(temperature=2.0), [0, 1, 2, 3, 4], 2.0),
        (Sampling(top_k=2), [0, 2], 1.0),
        (Sampling(top_k=99), [0, 1, 2, 3, 4], 1.0),
        (Sampling(top_p=0.7), [0, 2], 1.0),
        (Sampling(top_p=1e-9), [0], 1.0),
        (Sampling(top_k=3, top_p=0.8), [0, 2], 1.0),
        (Sampling(temperature=1e-4), [0], 1.0),
    ],
)
def test_shares_follow_the_kept_distribution(sampling: Sampling, kept: list[int], temperature: float) -> None:
    shares = drawn(LOGITS, sampling)
    expected = expected_shares(kept, temperature)
    assert (shares - expected).abs().max() < 0.03
    assert not shares[expected == 0].any()


def test_repetition_penalty_lowers_what_occurred() -> None:
    """Positive logits are divided, negative multiplied; the caller's logits stay as they were."""
    logits = torch.tensor([[2.0, 1.5, -1.0, -1.1]])
    kept = logits.clone()
    chosen = sample(logits, [replace(GREEDY, repetition_penalty=2.0)], [[0, 0, 2]], [torch.Generator()])
    assert chosen.tolist() == [1]
    assert logits.equal(kept)
    shares = drawn([2.0, 1.0, -1.0], Sampling(repetition_penalty=2.0), history=(0, 2))
    assert (shares - torch.tensor([1.0, 1.0, -2.0]).softmax(-1)).abs().max() < 0.03


def test_ends_of_earlier_turns_are_no_repetition() -> None:
    logits, way = torch.tensor([[2.0, 1.5, -1.0, -1.1]]), replace(GREEDY, repetition_penalty=2.0)
    assert sample(logits, [way], [[0, 2]], [torch.Generator()], end_ids={0}).tolist() == [0]


def test_each_row_keeps_its_own_way_and_its_own_numbers() -> None:
    logits = torch.randn(3, 200, generator=torch.Generator().manual_seed(2))
    ways = [Sampling(temperature=0.0), Sampling(top_p=0.9), Sampling(top_k=7, temperature=0.5)]

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]

    together = sample(logits, ways, [[]] * 3, generators())
    for row, (way, generator) in enumerate(zip(ways, generators(), strict=True)):
        assert sample(logits[row : row + 1], [way], [[]], [generator]).tolist() == [int(together[row])]
    assert together[0] == logits[0].argmax()


def test_forbidden_tokens_never_come() -> None:
    shares = drawn([float("-inf"), 0.0, float("-inf"), 0.0], Sampling(temperature=5.0))
    assert (shares > 0).tolist() == [False, True, False, True]


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"repetition_penalty": 0.0}])
def test_impossible_samplings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not a way to sample"):
        Sampling(**wrong)
