"""Which raw files are read, and how."""

import itertools
import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from danlu import catalogue
from danlu.config.values import Auto, Fraction, Paths, Positive, Section
from danlu.messages import text

if TYPE_CHECKING:
    Shape = str
else:
    Shape = Literal[("auto", *catalogue.shapes())]  # one has a file each


class Split(Section):
    valid: Fraction = Field(0.05, description="share of the rows held out to watch training")
    test: Fraction = Field(0.05, description="share of the rows held out for the final figures")

    @model_validator(mode="after")
    def _some_left(self) -> "Split":
        if self.valid + self.test >= 1:
            raise ValueError(text("recipe.split_sum"))
        return self


class Dedup(Section):
    threshold: Annotated[float, Field(ge=0.3, le=1.0, strict=True)] = Field(
        0.8, description="Jaccard similarity that counts as a near copy"
    )
    ngram: Literal["auto", "word", "char"] = Field(
        "auto", description="shingles of words, or of characters where words are not spaced"
    )
    size: Annotated[int, Field(ge=0, le=20, strict=True)] = Field(
        0, description="words or characters in a shingle; 0 chooses"
    )
    correlation: Annotated[float, Field(ge=0.5, le=1.0, strict=True)] | None = Field(
        None,
        description="correlation of pixels of near copies; default 0.95, with masks or boxes 0.995; 1.0: none",
    )


class Data(Section):
    path: Paths = Field(description="file, folder, glob, or a list of them")
    valid: Paths | None = Field(None, description="files held out to watch training, in the place of a share")
    test: Paths | None = Field(None, description="files held out for the final figures, in the place of a share")
    format: Literal[
        "auto", "text", "code", "csv", "tsv", "jsonl", "json", "parquet", "conll", "semeval", "squad", "copa", "mctest",
        "picture", "archive", "idx",
    ] = Field("auto", description="how files are read")  # fmt: skip
    record: Literal["auto", "file", "section", "line"] = Field("auto", description="what one row of plain text is")
    section: Annotated[int, Field(ge=200, le=1_000_000, strict=True)] = Field(
        4000, description="characters of a section"
    )
    shape: Shape = Field("auto", description="what a row holds; auto: what the task reads, else what is found")
    header: bool = Field(True, strict=True, description="whether the first line of a table names its columns")
    pattern: str | None = Field(
        None, description="a regular expression whose named groups are the columns of a line of plain text"
    )
    columns: dict[str, str] = Field({}, description='ours = "yours"; a column without a name is "1", "2", ...')
    ignore: list[str] = Field([], description="columns of a table that are not learned from")
    void: Annotated[int, Field(ge=0, le=255, strict=True)] | None = Field(
        None, description="number of a mask's pixels that are of no class; default 255"
    )
    encoding: str = Field("auto", description="auto, utf-8, utf-16, gb18030, ...")
    bad_records: Literal["fail", "skip"] = Field("fail", description="what a row that cannot be read does")
    exclude: list[str] = Field([], description="glob patterns of files to leave out")
    limit_mb: Positive | None = Field(None, description="at most this many MB, files in order of their content's hash")
    clean: list[str] | Auto = Field("auto", description="cleaning steps, in order; auto chooses by the kind of data")
    dedup: Dedup = Field(Dedup(), description="how near copies are found")
    split: Split = Field(Split(), description="held-out shares, drawn after duplicates are gone")

    @model_validator(mode="after")
    def _named_groups(self) -> "Data":
        if self.pattern is None:
            return self
        try:
            if re.compile(self.pattern).groupindex:
                return self
            reason = text("recipe.no_group")
        except re.error as error:
            reason = str(error)
        raise ValueError(text("recipe.pattern", reason=reason))

    def held_out(self) -> dict[str, list[str]]:
        """The splits that files are named for."""
        return {name: paths for name in ("valid", "test") if (paths := getattr(self, name))}

    def paths(self) -> tuple[str, ...]:
        """All raw files that are named."""
        return (*self.path, *itertools.chain.from_iterable(self.held_out().values()))
