"""The files of a tokenizer, as the `tokenizers` library reads them, for data whose tokens are bytes or characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layers.checkpoints.config_json import Json

BYTES = 256
_BYTE_LEVEL: Mapping[str, Json] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": False,
}


def byte_tokenizer() -> dict[str, Json]:
    """tokenizer.json: each byte of a text is a token, and its number the token's."""
    return _tokenizer(
        model={
            "type": "BPE",
            "vocab": {character: byte for byte, character in enumerate(_byte_characters())},
            "merges": [],
        },
        pre_tokenizer=_BYTE_LEVEL,
        decoder=_BYTE_LEVEL,
    )


def character_tokenizer(characters: Sequence[str]) -> dict[str, Json]:
    """tokenizer.json: each character is a token, numbered in this order; another character is an error."""
    return _tokenizer(
        # Without a token for what is unknown the library raises if it meets such a character.
        model={
            "type": "WordLevel",
            "vocab": {character: number for number, character in enumerate(characters)},
            "unk_token": "",
        },
        pre_tokenizer={
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        decoder={"type": "Fuse"},
    )


def tokenizer_config(longest: int) -> dict[str, Json]:
    """tokenizer_config.json, for texts of at most so many tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
    }


def _tokenizer(model: Json, pre_tokenizer: Json, decoder: Json) -> dict[str, Json]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _byte_characters() -> list[str]:
    """The character that stands for each byte, as GPT-2's tokenizer has it: those that print are themselves."""
    printed = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    characters: list[str] = []
    for byte in range(BYTES):
        others = byte - sum(each < byte for each in printed)
        characters.append(chr(byte) if byte in printed else chr(BYTES + others))
    return characters


def tokenizer_of(facts: Mapping[str, object]) -> dict[str, Json] | None:
    """tokenizer.json of a text's dataset, by its facts; None if it has none that the library can express."""
    vocabulary = facts.get("vocabulary")
    if facts.get("tokenizer") == "byte":
        return byte_tokenizer()
    if facts.get("tokenizer") == "char" and isinstance(vocabulary, list | tuple):
        return character_tokenizer([str(character) for character in vocabulary])
    return None
