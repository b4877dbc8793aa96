"""Masks: which tokens a token attends to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layers.declarations.rules import Condition, Violation
from layers.parameter import Parameter, Scalar

CAUSAL_MASKS = ("causal", "sliding_window_causal")
OPEN_MASKS = ("padding", "bidirectional", "sliding_window", "custom_mask")
MASK_TYPES = (*CAUSAL_MASKS, *OPEN_MASKS)
MASKS_OF_KIND = {"decoder": CAUSAL_MASKS, "encoder": OPEN_MASKS, "encoder_decoder": CAUSAL_MASKS}
"""What a kind's attention may see; that of an encoder_decoder is its decoder's. A probe's may be any."""

SLIDING_MASKS = ("sliding_window_causal", "sliding_window")
"""Those with a window."""

PADDING_MASKS = ("padding", "sliding_window")
"""Those that hide padding, which the data tells of."""

PARAMETERS: dict[str, Parameter] = {
    "attention_mask_type": Parameter(
        type="string",
        choices=MASK_TYPES,
        default=None,
        meaning=(
            "which tokens a token attends to: those up to itself (causal), the last few of them "
            "(sliding_window_causal), all but padding (padding), all (bidirectional), those near it on both sides but "
            "padding (sliding_window), those that the dataset says (custom_mask); left out: causal, in an encoder "
            "padding. An encoder_decoder's is its decoder's: its encoder sees all of the source but padding"
        ),
        source=(
            "TensorRT-LLM layers; sliding windows: Beltagy et al. 2020, arXiv 2004.05150; in both directions: Warner "
            "et al. 2024, arXiv 2412.13663"
        ),
        search={"values": ["causal", "sliding_window_causal"]},
    ),
    "max_attention_window_size": Parameter(
        type="integer",
        minimum=1,
        maximum=1_048_576,
        default=None,
        meaning=(
            "tokens of a sliding window, the token itself included; sliding_window has as many on each side; left out: "
            "half of the longest sequence"
        ),
        source="TensorRT-LLM layers; Jiang et al. 2023, arXiv 2310.06825",
        search={"values": [16, 32, 64, 128]},
    ),
}

APPLIES: dict[str, Condition] = {
    "max_attention_window_size": Condition("attention.attention_mask_type", SLIDING_MASKS),
}


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    kind, mask = str(model["kind"]), model["attention.attention_mask_type"]
    paths = ("kind", "attention.attention_mask_type")
    if mask not in MASKS_OF_KIND.get(kind, MASK_TYPES):
        if kind == "encoder":
            message = (
                f"an encoder sees tokens on both sides: {mask} hides later ones; take one of {_listed(OPEN_MASKS)}"
            )
            yield Violation("encoder needs an open mask", message, paths)
        else:
            message = (
                f"{kind} with the mask {mask} would see the tokens that it is to predict; take one of "
                f"{_listed(CAUSAL_MASKS)}"
            )
            yield Violation(f"{kind} needs a causal mask", message, paths)
    if kind == "attention" and model.get("attention.cross_attention", False):
        yield from _broken_by_crossing(mask)


def _broken_by_crossing(mask: Scalar) -> Iterator[Violation]:
    """What attention to an encoder cannot have: tokens of two sequences have no order and no distance."""
    paths = ("attention.cross_attention", "attention.attention_mask_type")
    allowed = [each for each in OPEN_MASKS if each not in SLIDING_MASKS]
    if mask in CAUSAL_MASKS:
        message = f"{mask} does not apply to cross attention; take one of {_listed(allowed)}"
        yield Violation("cross attention is not causal", message, paths)
    elif mask in SLIDING_MASKS:
        message = f"{mask} does not apply to cross attention, which has no distances; take one of {_listed(allowed)}"
        yield Violation("cross attention has no window", message, paths)


def _listed(masks: tuple[str, ...] | list[str]) -> str:
    return ", ".join(masks)
