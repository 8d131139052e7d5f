"""Learn one vector for each text, so that the vectors of texts that belong together are near: to search by meaning."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu import models
from danlu.data.shapes import alike
from danlu.errors import UserError
from danlu.metrics import regression, retrieval
from danlu.metrics.bag import BagOfTexts
from danlu.metrics.bootstrap import Figures, Floats, Sample
from danlu.modalities.text import Text
from danlu.models.architecture import Architecture
from danlu.nn.heads import HeadConfig, pooled
from danlu.nn.losses import wide
from danlu.nn.masks import firsts, openings, segment_positions
from danlu.randomness import generator
from danlu.tasks.task import Answer, Batch, Contrastive, Example, Row, place_of

ROLES = ("text", "positive", "negative")
_POOLING = "1_Pooling/config.json"
_POOLS = {"mean": "mean", "cls": "first"}


class SentenceEmbedding(Contrastive):
    """Vectors of length 1 of texts: input_ids (B, T) -> (N, D) of N texts, the mean of their states or the first.

    The texts of a row are its `parts`, in the order of ROLES, blind to each other. Of rows without a score each text
    must find its own among all positives and negatives of the batch (InfoNCE: van den Oord et al. 2018,
    arXiv:1807.03748; with normalised vectors: Henderson et al. 2017, arXiv:1705.00652); of rows with scores, the pairs
    with higher ones must have higher cosines (CoSENT; equation 2 of Li and Li 2023, arXiv:2309.12871). labels (B, T)
    float32 hold the score at the first token of a row, and NaN elsewhere.
    """

    inputs = {"text": Text, "positive": Text}
    optional = ("positive",)
    outputs = {"embedding": Text}
    shape = "alike"
    arch = "bert"
    long = "cut"
    judges = True
    known_as = ("feature-extraction", "sentence-similarity")
    stock = ("BertModel", "RobertaModel", "ElectraModel")
    options = {
        "pool": ("mean", ("mean", "cls"), "of a text's states, what its vector is: the mean, or the first"),
        "temperature": (0.05, [0.001, 10.0], "cosines are divided by it before they are compared"),
    }
    _blind = 1.0  # among how many answers the last evaluation was, on a geometric average

    @classmethod
    def stated(cls, folder: Path) -> dict[str, Any]:
        path = folder / _POOLING
        told = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return {"pool": "cls"} if told.get("pooling_mode_cls_token") else {}

    def companions(self, architecture: Architecture) -> dict[str, Any]:
        """As sentence-transformers reads a folder: the model, its pooling, vectors of length 1."""
        parts = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
        modules = [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (path, kind) in enumerate(parts.items())
        ]
        names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
        pooling = {name: pool == self.chosen["pool"] for name, pool in names.items()}
        width = {"word_embedding_dimension": architecture.core.dim}
        return {"modules.json": modules, _POOLING: width | pooling}

    def encode(self, row: Row) -> Example:
        row = alike.loaded(row) if row.get("positive") is not None else row  # stored, its text is all of its texts
        ids, kinds, parts = list[int](), list[int](), list[int]()
        for place, name in enumerate(ROLES):
            if row.get(name) is not None:
                own, kind = self.processor.joined(row[name], limit=self.context)
                ids, kinds, parts = ids + own, kinds + kind, parts + [place] * len(own)
        labels = np.full(len(ids), np.nan, np.float32)
        labels[0] = float(row["score"]) if row.get("score") is not None else np.nan
        return {"input_ids": ids, "type_ids": kinds, "parts": parts, "labels": labels}

    @property
    def choices(self) -> tuple[str, float]:
        return "N", self._blind

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.bare_head(architecture)

    # --- vectors ---

    def vectors(self, net: nn.Module, batch: Batch) -> Tensor:
        """(N, D) of length 1, in the order of the batch."""
        states = wide(net.hidden(batch))  # type: ignore[operator]
        return F.normalize(pooled(states, batch.get("segment_ids"), _POOLS[self.chosen["pool"]]), dim=-1)

    def _parted(self, vectors: Tensor, batch: Batch) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Of rows with two texts: vectors (R, D) and numbers (R,) of what each text is, by role, and scores (R,).

        Negatives (S, D) are fewer where some rows have none.
        """
        same = _identities(batch)
        roles, scores = firsts(batch["parts"], batch), firsts(batch["labels"], batch)
        row = (roles == 0).cumsum(0) - 1
        whole = torch.isin(row, row[roles == 1])  # rows that hold a text alone have nothing to learn from
        chosen = [whole & (roles == role) for role in range(len(ROLES))]
        return [vectors[each] for each in chosen], [same[each] for each in chosen], scores[chosen[0]]

    # --- to learn ---

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (firsts(batch["parts"], batch) == 1).sum()}

    def compared(self, vectors: Tensor, batch: Batch) -> dict[str, Tensor]:
        parted, same, scores = self._parted(vectors, batch)
        scored, cosines = ~scores.isnan(), self._logits(parted, same, scores)
        found = F.cross_entropy(*cosines, reduction="sum")
        return {"loss": found + self._ordering(parted, scores)[0] * scored.sum()}

    def _logits(self, vectors: list[Tensor], same: list[Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P, C) of rows without a score with all positives and negatives, and which belongs to each (P,).

        A candidate that is the same text as the right one, or as what is searched for, is no candidate (-inf).
        """
        paired = scores.isnan()
        candidates, known = (torch.cat([each[1][paired], each[2]]) for each in (vectors, same))
        logits = vectors[0][paired] @ candidates.T / self.chosen["temperature"]
        right = torch.arange(len(logits), device=logits.device)
        twins = (known == same[1][paired][:, None]) | (known == same[0][paired][:, None])
        twins[right, right] = False
        return logits.masked_fill(twins, -torch.inf), right

    def _ordering(self, vectors: list[Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
        """log(1 + the sum of exp((lower pair's cosine - higher pair's) / temperature)), and how many such there are."""
        scored = ~scores.isnan()
        cosines = (vectors[0] * vectors[1])[scored].sum(-1) / self.chosen["temperature"]
        lower = scores[scored][:, None] < scores[scored]
        apart = (cosines[:, None] - cosines)[lower]
        return torch.cat([apart.new_zeros(1), apart]).logsumexp(0), lower.sum()

    # --- to measure ---

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        vectors, same, scores = self._parted(self.vectors(net, batch), batch)
        scored, (logits, right) = ~scores.isnan(), self._logits(vectors, same, scores)
        ordering, pairs = self._ordering(vectors, scores)
        x, y = (vectors[0] * vectors[1])[scored].sum(-1).double(), scores[scored].double()
        candidates = (logits > -torch.inf).sum(1).double()
        return {
            "loss": F.cross_entropy(logits.double(), right, reduction="sum") + ordering.double() * scored.sum(),
            "blind": candidates.log().sum() + (1 + pairs.double()).log() * scored.sum(),
            "pairs": torch.stack(
                [(logits.argmax(1) == right).sum() if len(right) else scored.sum() * 0, (~scored).sum()]
            ),
            "scored": torch.stack([scored.sum().double(), x.sum(), y.sum(), x @ x, y @ y, x @ y]),
        }

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        hits, pairs = (float(each) for each in sums["pairs"])
        n, *moments = (float(each) for each in sums["scored"])
        total = max(pairs + n, 1)
        self._blind = float(np.exp(float(sums["blind"]) / total))
        found = {"loss": float(sums["loss"]) / total} | ({"batch_recall": hits / pairs} if pairs else {})
        return found | ({"pearson": regression.pearson(n, *moments)} if n else {})

    # --- to answer ---

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        """The vector of each text, and how many tokens were read: {"embedding": (D,), "tokens"}; of other parts too."""
        with torch.no_grad():
            vectors = self.vectors(net, batch).float().cpu().numpy()
        roles, sizes = firsts(batch["parts"], batch).tolist(), _sizes(batch)
        answers: list[Row] = []
        for role, vector, size in zip(roles, vectors, sizes, strict=True):
            if role == 0:
                answers.append({"embedding": vector, "tokens": size})
            else:
                answers[-1][ROLES[role]] = vector
        return answers

    def alone(self, answer: Row) -> Row:
        """The vector of a text in plain numbers; of two texts, the cosine."""
        if "positive" in answer:
            return {"cosine": float(answer["embedding"] @ answer["positive"])}
        return answer | {"embedding": answer["embedding"].tolist()}

    def together(self, answers: list[Row], rows: Sequence[Row]) -> list[Row]:
        """The cosine of each pair in the place of its vectors, and what a search among the texts of all rows finds."""
        if not answers or not all("positive" in answer for answer in answers):
            return answers
        search = retrieval.Search([row for row in rows if row.get("score") is None])
        own = [answer for answer, row in zip(answers, rows, strict=True) if row.get("score") is None]
        candidates = np.array([own[place][name] for place, name in search.places.values()])
        pieces = retrieval.cosines(np.array([answer["embedding"] for answer in own]), candidates)
        cosines = [float(answer["embedding"] @ answer["positive"]) for answer in answers]
        return _found(rows, cosines, search.ranked(pieces))

    def told(self, answer: Row) -> str:
        if "embedding" in answer:
            return f"({len(answer['embedding'])}) " + " ".join(f"{each:.3f}" for each in answer["embedding"][:4]) + " …"
        if "nearest" in answer:
            return f"{answer['nearest']} ({answer['cosine']:.2f})"
        return f"{answer['cosine']:.3f}" if "cosine" in answer else str(answer.get("score") or answer["positive"])

    def answer(self, net: nn.Module, batch: Batch, wanted: str = "") -> Answer:
        """The cosine of two texts.

        Raises:
            UserError: E613, there is one text alone.
        """
        place_of(wanted, ("cosine",), 0)
        if int(batch["parts"].max()) == 0:
            raise UserError("E613")

        def figures(seen: Batch) -> tuple[Tensor, Tensor]:
            vectors = self.vectors(net, seen).view(len(seen["input_ids"]), 2, -1)
            found = (vectors[:, 0] * vectors[:, 1]).sum(-1)
            return found, found

        return Answer("cosine", figures)

    def blanks(self, example: Example) -> list[Example]:
        """One of the two texts blank beside the other as it is, in turn: two blank ones would be much alike."""
        (nothing,) = self.processor.blanks(example)
        columns = list(zip(example["parts"], example["input_ids"], nothing["input_ids"], strict=True))
        return [{**example, "input_ids": [blank if part == side else real for part, real, blank in columns]}
                for side in (0, 1)]  # fmt: skip

    # --- whole predictions ---

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        if not all("cosine" in answer for answer in predictions):
            return None
        scored = np.array([row.get("score") is not None for row in references])
        ranks = np.array([answer["rank"] for answer in predictions if "rank" in answer])
        truth = np.array([float(row["score"]) for row in references if row.get("score") is not None])
        cosines = np.array([answer["cosine"] for answer in predictions])[scored]
        related = regression.correlations(truth, cosines) if len(truth) else None

        def statistic(drawn: Floats) -> Figures:
            found = retrieval.figures(ranks, drawn[:, ~scored]) if len(ranks) else {}
            return found | (related(drawn[:, scored]) if related else {})

        return Sample(np.ones(len(scored), np.int64), statistic)

    def right(self, prediction: Row, reference: Row) -> bool | None:
        return prediction["rank"] <= 1 if "rank" in prediction else None

    def error(self, prediction: Row, reference: Row) -> Row | None:
        if self.right(prediction, reference) is not False:
            return None
        found = {"wanted": reference["positive"], "found": self.told(prediction), "weight": prediction["rank"]}
        return {"given": reference["text"], **found}

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """The cosine of bags of n-grams, weighted by tf-idf of the texts of these rows: it learns from no pair."""
        encoded = {text: np.array(self.processor.encode(text), np.int64) for row in held_out for text in _texts(row)}
        bag = BagOfTexts(list(encoded.values()), self.processor.vocab_size, order)
        search = retrieval.Search([row for row in held_out if row.get("score") is None])
        queries = [encoded[row["text"]] for row in search.rows]
        pieces = bag.cosines(queries, [encoded[text] for text in search.candidates]) if queries else ()
        cosines = bag.paired(*([encoded[row[name]] for row in held_out] for name in ROLES[:2]))
        return {"bag": _found(held_out, cosines.tolist(), search.ranked(pieces))}


def _found(rows: Sequence[Row], cosines: Sequence[float], ranked: Iterator[Row]) -> list[Row]:
    """{"cosine"} of each row, and {"rank", "nearest"} of those without a score."""
    return [
        {"cosine": cosine} | (next(ranked) if row.get("score") is None else {})
        for row, cosine in zip(rows, cosines, strict=True)
    ]


def _texts(row: Row) -> list[str]:
    return [row[name] for name in ROLES if row.get(name) is not None]


def _numbered(batch: Batch) -> tuple[Tensor, Tensor]:
    """Which places hold a token (B, T), and of which text each place is (B, T), from 0."""
    segments = _segments(batch)
    return segments > 0, openings(segments).flatten().cumsum(0).view_as(segments) - 1


def _segments(batch: Batch) -> Tensor:
    return batch.get("segment_ids", torch.ones_like(batch["input_ids"]))


def _sizes(batch: Batch) -> list[int]:
    """How many tokens each text has (N,)."""
    real, number = _numbered(batch)
    sizes: list[int] = torch.bincount(number[real]).tolist()
    return sizes


def _identities(batch: Batch) -> Tensor:
    """A number for each text (N,), the same where all tokens are: a sum of them with random odd weights, mod 2^64."""
    (real, number), places = _numbered(batch), segment_positions(_segments(batch))
    weights = 2 * torch.randint(2**62, (places.shape[1],), generator=generator(0, "identity")) + 1
    marked = (batch["input_ids"] + 1) * weights.to(places.device)[places]
    return marked.new_zeros(int(number[-1, -1]) + 1).index_add_(0, number[real], marked[real])
