"""Text: the tokenizer of a model, opened by transformers as it is by us.

Control tokens (end of text, turns of a chat) come from the template alone: text is encoded by a copy of
the tokenizer that does not know them, so no string of a user can ever become one.
"""

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tokenizers import AddedToken, Tokenizer

from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.modalities.chat import END, END_TURN, START_TURN, TEMPLATE
from danlu.modalities.modality import Batch, Example, Modality, Word
from danlu.modalities.vocabulary import bpe, char, sentencepiece, stock, wordpiece
from danlu.modalities.vocabulary.sample import auto_size, thin
from danlu.modalities.words import merged

if TYPE_CHECKING:
    import torch

_KINDS = {"bpe": bpe, "char": char, "wordpiece": wordpiece}  # those we train
_CARRIED = {**_KINDS, "sentencepiece": sentencepiece}
_SPACED = ("wordpiece", "sentencepiece")  # a text's first token brings a space that is not the text's
_LONG = 100_000  # characters of white space in a row: tiktoken's pattern engine overflows at ten times as many
_FIRST_WIDE = "\u2e80"  # Chinese and its neighbours, which write no spaces, begin here
_GAP = re.compile(rf"(?<!\s)\s{{{_LONG}}}")


class Text(Modality):
    """A fitted tokenizer. `control` maps the names of control tokens to ids.

    `kind` is bpe, wordpiece, char or sentencepiece. `roles` names what other libraries' folders speak to a model with:
    {"eos": "</s>", "cls": "[CLS]", ...}.
    """

    column: ClassVar = "text"
    file: ClassVar = "tokenizer.json"

    def __init__(self, tokenizer: Tokenizer, roles: Mapping[str, str] | None = None):
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.kind, self._plain = _without_control(tokenizer.to_str())
        self.roles = dict(roles or {})
        self.vocab_size = max(tokenizer.get_vocab().values(), default=-1) + 1
        special = {
            token.content: index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self.control = {name: index for name, index in special.items() if name != wordpiece.UNKNOWN}
        self._tokenizer = tokenizer
        self._fast = bpe.fast(self._plain) if self.kind == "bpe" else None
        self._pieces = _table(_CARRIED[self.kind].pieces(tokenizer), set(special.values()), self.vocab_size)

    @classmethod
    def fit(cls, texts: Iterable[str], *, type: str = "bpe", vocab_size: int | str = "auto") -> Self:  # type: ignore[override]
        """Learn a vocabulary of at most `vocab_size` tokens, control tokens included, in bounded memory."""
        sample, total = _measured(texts)
        size = auto_size(sample, total) if vocab_size == "auto" else int(vocab_size)
        tokenizer = _KINDS[type].train(sample, size - len((END, START_TURN, END_TURN)))
        names = (*(name for name in wordpiece.SPECIAL if type == "wordpiece"), END, START_TURN, END_TURN)
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
        return cls(tokenizer)

    def with_control(self, names: Sequence[str]) -> Self:
        """This tokenizer with these control tokens too, after all others."""
        if set(names) <= self.control.keys():
            return self
        grown = Tokenizer.from_str(self._tokenizer.to_str())
        grown.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
        return type(self)(grown, self.roles)

    # --- text to ids -----------------------------------------------------------------------------------

    def encode(self, value: str) -> list[int]:
        """The ids of a text; never a control id.

        Raises:
            UnicodeEncodeError: the text holds half a surrogate pair, which is no character.
        """
        value.encode()  # raises here; tiktoken would replace it in silence
        if self._fast is None or (len(value) >= _LONG and _GAP.search(value)):
            return self._plain.encode(value, add_special_tokens=False).ids
        return self._fast.encode_ordinary(value)

    def located(self, value: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`encode`, and the characters (begin, end) of the text that each id stands for."""
        found = self._plain.encode(value, add_special_tokens=False)
        return found.ids, found.offsets

    def framed(self, value: str, pair: str | None = None) -> Example:
        """`encode` between the tokens that the model expects around one text or two, with their types (T,).

        BERT's "[CLS] value [SEP] pair [SEP]", say; the text alone where the tokenizer has no such form.
        """
        second = None if pair is None else self._plain.encode(pair, add_special_tokens=False)
        framed = self._tokenizer.post_process(self._plain.encode(value, add_special_tokens=False), second)
        return {"input_ids": framed.ids, "type_ids": framed.type_ids}

    def encode_batch(self, values: Sequence[str]) -> list[list[int]]:
        """`encode` of every text."""
        return [self.encode(value) for value in values]

    # --- ids to text -----------------------------------------------------------------------------------

    def piece(self, index: int) -> bytes:
        """The bytes a token adds to the text; none for a control token."""
        return self._pieces[index]

    def inside(self) -> list[bool]:
        """Whether each token goes on with the word of the token before it (V,).

        A space begins a word, and so does every Chinese character that is a token of its own.
        """
        return [_inside(piece) for piece in self._pieces]

    def token_bytes(self) -> list[int]:
        """How many bytes of text each token stands for (V,); 0 for control tokens."""
        return [len(piece) for piece in self._pieces]

    def decode(self, encoded: Iterable[int]) -> str:
        """The text of ids; control tokens are left out, bytes that are no UTF-8 become U+FFFD."""
        text = b"".join([self._pieces[index] for index in encoded]).decode(errors="replace")
        return text.removeprefix(" ") if self.spaced else text

    @property
    def spaced(self) -> bool:
        """Whether the first token of a text brings a space that is not the text's."""
        return self.kind in _SPACED

    def show(self, encoded: Iterable[int]) -> list[str]:
        """Each token as a reader sees it: control tokens by name, bytes that are no whole character as \\xe4."""
        names = {index: name for name, index in self.control.items()}
        return [names.get(index) or self._pieces[index].decode(errors="backslashreplace") for index in encoded]

    def words(self, example: Example) -> list[Word]:
        """Its words, put together from their tokens; of scripts without spaces, its tokens."""
        names = {index: name for name, index in self.control.items()}
        pieces = [(self._pieces[index] or f" {wordpiece.UNKNOWN}".encode()) for index in example["input_ids"]]
        control = [names.get(index) for index in example["input_ids"]]
        return merged(zip(pieces, map(_inside, pieces), control, strict=True))

    def blanks(self, example: Example) -> list[Example]:
        """Every token but the control tokens is the mask, or the filler where there is none."""
        fixed, names = set(self.control.values()), ("[MASK]", "<mask>")
        nothing = next((self.control[name] for name in names if name in self.control), self.pad_id)
        return [{**example, "input_ids": [each if each in fixed else nothing for each in example["input_ids"]]}]

    def stream(self) -> "Detokenizer":
        """A decoder that takes one id at a time."""
        return Detokenizer(self)

    # --- control tokens --------------------------------------------------------------------------------

    @property
    def end_id(self) -> int:
        """The token between documents; of other libraries' tokenizers what they call eos, or sep."""
        foreign = self.roles.get("eos") or self.roles.get("sep")
        return self._named(END if END in self.control or not foreign else foreign)

    @property
    def start_turn(self) -> int:
        """The token that opens a turn of a chat."""
        return self._named(START_TURN)

    @property
    def end_turn(self) -> int:
        """The token that closes a turn of a chat."""
        return self._named(END_TURN)

    @property
    def pad_id(self) -> int:
        """The filler of a batch, never attended to."""
        pad = self.roles.get("pad", "[PAD]")
        return self.control[pad] if pad in self.control else self.control.get("[PAD]", self.end_id)

    @property
    def opening(self) -> int:
        """The token before a text that is read as a whole."""
        return self._first_of("[CLS]", "<s>", END)

    @property
    def closing(self) -> int:
        """The token after a text, or between two."""
        return self._first_of("[SEP]", "</s>", END)

    @property
    def mask_id(self) -> int:
        """The token that stands for a hidden one."""
        return self._first_of("[MASK]", "<mask>")

    def joined(self, first: str, second: str | None = None, limit: int | None = None) -> tuple[list[int], list[int]]:
        """The ids of one text or of two, between control tokens, and of which each is a part (0 or 1).

        At most `limit` of them: the longer text loses tokens from its end first.
        """
        return self.joined_ids(self.encode(first), None if second is None else self.encode(second), limit)

    def joined_ids(
        self, one: list[int], two: list[int] | None, limit: int | None = None
    ) -> tuple[list[int], list[int]]:
        """`joined` of texts that are encoded."""
        between = [self.closing] * (2 if two is not None and "</s>" in self.control else 1)
        around = 1 + len(between) + (two is not None)
        if limit is not None:
            _shorten(one, two, max(0, limit - around))
        ids = [self.opening, *one, *between]
        kinds = [0] * (len(ids) - len(between) + 1) + [1] * (len(between) - 1)
        return (ids, kinds) if two is None else ([*ids, *two, self.closing], kinds + [1] * (len(two) + 1))

    def _first_of(self, *names: str) -> int:
        return next((self.control[name] for name in names if name in self.control), None) or self._named(names[-1])

    def _named(self, name: str) -> int:
        if name not in self.control:
            raise UserError("E310", name=name)
        return self.control[name]

    @property
    def encoder(self) -> str:
        """The library that encodes: tiktoken where its ids are proved equal, else tokenizers."""
        return "tiktoken" if self._fast else "tokenizers"

    # --- batches ---------------------------------------------------------------------------------------

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Columns (B, T) padded on the right, with `segment_ids` 1 where there is a token and 0 where not."""
        import torch

        batch = {name: _padded([row[name] for row in examples], self._filler(name)) for name in examples[0]}
        lengths = torch.tensor([len(row["input_ids"]) for row in examples])
        batch["segment_ids"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        if "parts" in batch:  # which do not see each other
            batch["segment_ids"] *= batch["parts"] + 1
        return batch

    def _filler(self, name: str) -> int:
        return self.pad_id if name == "input_ids" else 0

    def embed(self, dim: int) -> "torch.nn.Module":
        """A table of token vectors: input_ids (B, T) -> (B, T, dim)."""
        from danlu.nn.embed import Tokens, TokensConfig

        return Tokens(TokensConfig(vocab=self.vocab_size, width=dim), dim)

    # --- folders ---------------------------------------------------------------------------------------

    def save(self, folder: Path, *, typed: bool = False) -> None:
        """Write tokenizer.json and tokenizer_config.json as transformers reads them (and vocab.txt for WordPiece).

        `typed`: of two texts, a model is told which token is of which.
        """
        (folder / "tokenizer.json").write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")
        told = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]} if typed else {}
        settings = json.dumps(self._settings() | told, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(settings + "\n", encoding="utf-8")
        if self.kind == "wordpiece":
            vocabulary = self._tokenizer.get_vocab()
            (folder / "vocab.txt").write_text(
                "\n".join(sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8"
            )

    def _settings(self) -> dict[str, Any]:
        names = {index: name for name, index in self.control.items()}
        settings: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": names[self.end_id],
            "pad_token": names[self.pad_id],
            "clean_up_tokenization_spaces": False,
        }
        if START_TURN in self.control:
            settings |= {"additional_special_tokens": [START_TURN, END_TURN], "chat_template": TEMPLATE}
        settings |= {f"{role}_token": token for role, token in self.roles.items()}
        named = {f"{name[1:-1].lower()}_token": name for name in wordpiece.SPECIAL if self.kind == "wordpiece"}
        return settings | named

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The tokenizer in `folder`, in any layout that `vocabulary.stock` reads.

        Raises:
            UserError: E301 none there, or damaged; E311 of a kind that we do not carry.
        """
        try:
            return cls(stock.load(folder), stock.roles(folder))
        except UserError:
            raise
        except Exception as problem:  # tokenizers raises bare Exception for a file it cannot read
            raise UserError("E301", path=folder / "tokenizer.json", reason=because(problem)) from problem


class Detokenizer:
    """Text as ids arrive: whole characters only. All pushed, then flushed, is what `decode` gives."""

    def __init__(self, text: Text):
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._first = text.spaced

    def push(self, index: int) -> str:
        """The characters that this id completes; often one, sometimes none."""
        return self._trimmed(self._decoder.decode(self._text.piece(index)))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed."""
        return self._trimmed(self._decoder.decode(b"", final=True))

    def _trimmed(self, text: str) -> str:
        if self._first and text:
            self._first, text = False, text.removeprefix(" ")
        return text


def _measured(texts: Iterable[str]) -> tuple[list[str], int]:
    """An even sample of a stream and the UTF-8 length of the whole."""
    total = 0

    def counted() -> Iterable[str]:
        nonlocal total
        for text in texts:
            total += len(text.encode())
            yield text

    sample = thin(counted())
    return sample, total


def _kind(plain: Mapping[str, Any]) -> str:
    """Which of our vocabularies the parts of a tokenizer make.

    Raises:
        UserError: E311 for one that we do not carry.
    """
    model, decoder = plain["model"], (plain["decoder"] or {}).get("type")
    if model["type"] == "WordPiece":
        return "wordpiece"
    if model["type"] == "BPE" and decoder == "ByteLevel":
        return "bpe"
    if model["type"] == "BPE" and model["byte_fallback"] and not model["merges"]:
        return "char"
    spaces = json.dumps([plain["normalizer"], plain["pre_tokenizer"]], ensure_ascii=False)
    if model["type"] in ("Unigram", "BPE") and sentencepiece.SPACE in spaces:
        return "sentencepiece"
    raise UserError("E311", kind=model["type"])


@lru_cache(maxsize=2)  # a life opens one tokenizer four times: for the look, the rows, the base and the training
def _without_control(written: str) -> tuple[str, Tokenizer]:
    """Which of our vocabularies a tokenizer is that was written out, and the same without its control tokens."""
    plain = json.loads(written)
    bare = plain | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    return _kind(plain), Tokenizer.from_str(json.dumps(bare))


def _inside(piece: bytes) -> bool:
    if 0x80 <= (piece or b" ")[0] < 0xC0:  # within a character
        return True
    first = piece.decode(errors="ignore")[:1]
    return first.isalnum() and first < _FIRST_WIDE


def _table(pieces: dict[int, bytes], special: set[int], size: int) -> list[bytes]:
    return [b"" if index in special else pieces.get(index, b"") for index in range(size)]


def _shorten(one: list[int], two: list[int] | None, room: int) -> None:
    """Cut the ends of two texts until both fit, the longer first."""
    other = len(two or ())
    keep = min(len(one), max(room - other, room - room // 2))
    del one[keep:]
    if two is not None:
        del two[max(0, room - keep) :]


def _padded(rows: Sequence[Any], filler: int) -> "torch.Tensor":
    import torch

    tensors = [torch.as_tensor(row) for row in rows]
    if tensors[0].ndim == 0:
        return torch.stack(tensors)
    return torch.nn.utils.rnn.pad_sequence([t.long() for t in tensors], batch_first=True, padding_value=filler)
