"""Small tokenizers of every kind, fitted once."""

import pytest

from danlu.modalities.text import Text

CORPUS = [
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n",
    "def area(width, height):\n    '''The area.'''\n    return width * height  # 12 * 30\n",
    "第一回  甄士隐梦幻识通灵　贾雨村风尘怀闺秀。此开卷第一回也。作者自云：因曾历过一番梦幻之后，故将真事隐去。\r\n",
    "user assistant system tool <|im_start|> <|im_end|> <|endoftext|> [CLS] [SEP] [MASK] [PAD]\n",
] * 4
KINDS = ("bpe", "char", "wordpiece")


@pytest.fixture(scope="session")
def texts() -> dict[str, Text]:
    """One fitted Text per kind."""
    return {kind: Text.fit(CORPUS, type=kind, vocab_size=700) for kind in KINDS}


@pytest.fixture(params=KINDS)
def text(request: pytest.FixtureRequest, texts: dict[str, Text]) -> Text:
    return texts[request.param]


@pytest.fixture(params=("bpe", "char"))
def exact(request: pytest.FixtureRequest, texts: dict[str, Text]) -> Text:
    """The kinds that give every string back."""
    return texts[request.param]
