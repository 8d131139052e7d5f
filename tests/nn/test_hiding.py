"""What is hidden: the share, whole words, runs of tokens, and never what may not be."""

import pytest
import torch
from torch import Tensor

from danlu.nn import hiding

ROWS, TIME = 64, 500


def drawn(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text() -> tuple[Tensor, Tensor, Tensor]:
    """Who may be hidden, who goes on with a word, and the segments of rows of two texts and padding."""
    segments = torch.zeros(ROWS, TIME, dtype=torch.long)
    segments[:, :200], segments[:, 200:450] = 1, 2
    free = segments > 0
    free[:, [0, 199, 200, 449]] = False
    inside = torch.rand(ROWS, TIME, generator=drawn(5)) < 0.4
    return free, inside, segments


def every(share: float, seed: int = 1) -> dict[str, Tensor]:
    free, inside, segments = text()
    return {
        "tokens": hiding.tokens(free, share, drawn(seed)),
        "words": hiding.words(free, inside, share, drawn(seed)),
        "spans": hiding.spans(free, segments, share, drawn(seed)),
    }


@pytest.mark.parametrize("share", [0.15, 0.5])
@pytest.mark.parametrize("way", ["tokens", "words", "spans"])
def test_the_share_of_what_may_be_hidden_is_hidden(way: str, share: float) -> None:
    free, hidden = text()[0], every(share)[way]
    assert not bool((hidden & ~free).any())
    assert float(hidden.sum() / free.sum()) == pytest.approx(share, abs=0.012)


def test_words_are_hidden_whole() -> None:
    free, inside, _ = text()
    hidden = every(0.3)["words"]
    joined = inside[:, 1:] & free[:, 1:] & free[:, :-1]
    assert bool((hidden[:, 1:] == hidden[:, :-1])[joined].all())
    assert bool((every(0.3)["tokens"][:, 1:] != every(0.3)["tokens"][:, :-1])[joined].any())


def test_spans_have_the_mean_length_of_the_paper_and_stay_in_their_text() -> None:
    """A mean of 3.8 tokens (SpanBERT 3.1), seen where spans are too few to touch."""
    free = torch.ones(400, 5000, dtype=torch.bool)
    hidden = hiding.spans(free, free.long(), 0.004, drawn())
    begins = hidden & ~torch.nn.functional.pad(hidden, (1, 0))[:, :-1]
    assert float(hidden.sum() / begins.sum()) == pytest.approx(3.8, abs=0.1)
    segments = torch.arange(5000).expand(400, -1) // 2 + 1  # texts of two tokens: longer spans would run over
    apart = hiding.spans(free, segments, 0.1, drawn())
    seconds = apart[:, 1::2] & ~apart[:, ::2]
    assert bool(seconds.any())
    alone = hiding.spans(free, torch.arange(5000).expand(400, -1) + 1, 0.1, drawn())
    assert float(alone.float().mean()) == pytest.approx(0.1 / 3.8, rel=0.1)  # one token of each span is left
