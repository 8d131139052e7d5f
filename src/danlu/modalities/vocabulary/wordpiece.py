"""WordPiece as BERT uses it (Devlin et al. 2019): lower case, words at spaces and punctuation, ## continues a word."""

from itertools import accumulate

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from danlu.modalities.vocabulary.sample import characters

UNKNOWN = "[UNK]"
SPECIAL = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")


def build(vocabulary: dict[str, int]) -> Tokenizer:
    """The tokenizer of a BERT vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def _continues(blank: Tokenizer, char: str) -> bool:
    """Whether a character can stand inside a word: punctuation and Chinese characters cannot."""
    return len(blank.pre_tokenizer.pre_tokenize_str(blank.normalizer.normalize_str(f"a{char}a"))) == 1


def _affordable(blank: Tokenizer, chars: list[str], size: int) -> list[str]:
    """The first characters that, with their ## forms, take at most 7/8 of the vocabulary."""
    costs = accumulate(1 + _continues(blank, char) for char in chars[:size])
    return [char for char, cost in zip(chars, costs, strict=False) if cost + len(SPECIAL) <= size * 7 // 8]


def train(texts: list[str], size: int) -> Tokenizer:
    """A tokenizer of at most `size` tokens, BERT's five special ones among them."""
    blank = build({name: index for index, name in enumerate(SPECIAL)})
    counted = characters(blank.normalizer.normalize_str(text) for text in texts)
    alphabet = _affordable(blank, [char for char, _ in counted if not char.isspace()], size)
    # The trainer numbers ## characters in the random order of a hash table, and breaks ties by number:
    # naming them beforehand makes the same text give the same vocabulary.
    inside = [f"##{char}" for char in alphabet if _continues(blank, char)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL, *inside],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    blank.train_from_iterator(texts, trainer, length=len(texts))
    return build(blank.get_vocab(with_added_tokens=False))


def pieces(tokenizer: Tokenizer) -> dict[int, bytes]:
    """What every token adds to a text: a word brings the space before it."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return {index: _bytes(token) for token, index in vocabulary.items()}


def _bytes(token: str) -> bytes:
    return (token[2:] if token.startswith("##") else f" {token}").encode()
