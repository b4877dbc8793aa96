"""What the columns of a dataset hold: facts, counts and profiles by task. `service.datasets` writes them."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias, TypedDict

PairTokenizer = Literal["char", "whitespace"]
"""Of one side of pairs."""


class TextFacts(TypedDict):
    tokenizer: str
    """`byte`, `char`, `bpe:N` or `file`."""
    vocabulary_size: int
    vocabulary: NotRequired[list[str]]
    """The characters by token."""
    tokenizer_sha256: NotRequired[str]
    """Of the `tokenizer.json` that is stored with the dataset."""


class PaddedVocabulary(TypedDict):
    vocabulary_size: int
    pad_id: NotRequired[int]
    """If rows differ in length."""


class LabelledFacts(PaddedVocabulary):
    classes: int
    sequence_length: int
    labels: list[str]
    """The names of the classes."""
    attention_mask: NotRequired[Literal[True]]


class PairFacts(TypedDict):
    tokenizer: PairTokenizer
    """Of sources."""
    target_tokenizer: PairTokenizer
    source_vocabulary_size: int
    vocabulary_size: int
    source_length: int
    target_length: int
    pad_id: int
    start_id: int
    end_id: int
    source_symbols: list[str]
    target_symbols: list[str]


Facts: TypeAlias = TextFacts | LabelledFacts | PairFacts
"""What a model has to know of its data."""


class SplitCounts(TypedDict):
    """How much a split has."""

    tokens: NotRequired[int]
    examples: NotRequired[int]
    bytes: NotRequired[int]
    """Of a text's UTF-8."""


class StoredSplit(SplitCounts):
    sha256: str
    """Of its file."""


class Profile(TypedDict):
    """What a dataset is like, before anything is trained on it."""

    vocabulary_size: int
    baselines_nats: dict[str, float]
    """Losses of simple models."""
    notes: NotRequired[list[str]]


class TokenShare(TypedDict):
    token: str
    share: float


class UnseenSymbols(TypedDict):
    """What the validation split has and the training split has not."""

    kinds: list[str]
    count: NotRequired[int]
    validation_tokens: int


class LineFacts(TypedDict):
    """How much of a text repeats, by its longer lines."""

    minimum_characters: int
    training: int
    validation: int
    duplicate_share: float
    validation_in_training_share: float


class BaselinesRead(TypedDict):
    """How much of a long text the baselines were fitted and scored on."""

    training_tokens: int
    validation_tokens: int


class TextProfile(Profile):
    tokens: dict[str, int]
    """By split."""
    used_in_training: int
    unseen_in_training: UnseenSymbols
    frequent_tokens: list[TokenShare]
    lines: LineFacts
    baselines_read: BaselinesRead


ClassShare = TypedDict("ClassShare", {"class": str, "training": int, "validation": int})


class Lengths(TypedDict):
    """Of examples; percentiles if they differ."""

    minimum: int
    mean: float
    p50: NotRequired[float]
    p90: NotRequired[float]
    p99: NotRequired[float]
    longest: int


class Duplicates(TypedDict):
    training_share: float
    validation_in_training_share: float
    contradicting: int
    """Rows that come with more than one label."""


class LabelledProfile(Profile):
    examples: dict[str, int]
    """By split."""
    used_in_training: int
    classes: list[ClassShare]
    lengths: Lengths
    duplicates: Duplicates
    baselines_accuracy: dict[str, float]


class PairLengths(TypedDict):
    source: Lengths
    target: Lengths


class PairProfile(Profile):
    examples: dict[str, int]
    """By split."""
    target_tokens: dict[str, int]
    source_vocabulary_size: int
    lengths: PairLengths
    sources_with_several_targets_share: float
    unseen_in_training: UnseenSymbols
    frequent_tokens: list[TokenShare]
    baselines_accuracy: dict[str, float]
