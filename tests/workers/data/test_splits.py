"""What a model is given of a dataset: every token, row and pair once, padding apart, and nothing that is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.workers.scripted_service import FACTS, SPLITS
from workers.data.batches import Batches, DataError
from workers.data.inputs import data_inputs
from workers.data.splits import Form, LabelledSplit, PairsSplit, Split, TextSplit, load_split, specials_of

PAIR_INPUTS = ("source", "source_mask", "tokens")


def labelled(*inputs: str, length: int = 12, **changed: np.ndarray) -> LabelledSplit:
    return LabelledSplit(SPLITS["classification"]["training"] | changed, Form(("tokens", *inputs), length, length, {}))


def pairs(split: str = "training", *, source: int = 7, target: int = 8) -> PairsSplit:
    return PairsSplit(SPLITS["seq2seq"][split], Form(PAIR_INPUTS, target, source, specials_of(FACTS["seq2seq"])))


@pytest.mark.parametrize(("count", "batch_size"), [(2, 1), (33, 4), (97, 4), (100, 1), (1000, 7)])
def test_every_token_but_the_first_is_a_target_once(count: int, batch_size: int) -> None:
    tokens = np.arange(1000, 1000 + count)
    batches = TextSplit(tokens, 16).evaluation(batch_size)
    counted = batches.weights > 0
    inputs = batches.inputs["tokens"]
    assert inputs.shape == batches.targets.shape == batches.weights.shape
    assert inputs.shape[1:] == (batch_size, 16)
    assert batches.targets[counted].tolist() == tokens[1:].tolist()
    assert inputs[counted].tolist() == tokens[:-1].tolist()
    assert (inputs.dtype, batches.targets.dtype, batches.weights.dtype) == (np.int32, np.int32, np.float32)


def test_a_sample_is_full_windows_spread_over_the_split() -> None:
    batches = TextSplit(np.arange(16 * 100 + 5), 16).evaluation(4, at_most=10)
    assert batches.weights.sum() == 10 * 16
    starts = batches.in_one().inputs["tokens"][:10, 0]
    assert starts.tolist() == [160 * number for number in range(10)]


def test_a_sample_larger_than_the_split_is_the_split() -> None:
    for split in (TextSplit(np.arange(100), 16), labelled(), pairs()):
        whole, sample = split.evaluation(4), split.evaluation(4, at_most=1000)
        assert (whole.inputs["tokens"] == sample.inputs["tokens"]).all()
        assert (whole.weights == sample.weights).all()


def test_one_token_has_nothing_to_predict() -> None:
    with pytest.raises(DataError, match="no next token"):
        TextSplit(np.arange(1), 4)


def test_tokens_must_be_a_row_of_integers(tmp_path: Path) -> None:
    np.savez(tmp_path / "split.npz", tokens=np.zeros((2, 2)))
    with pytest.raises(DataError, match="not a row of integers"):
        load_split(tmp_path / "split.npz", "causal_lm", Form(("tokens",), 4, 4, {}))


def test_batches_come_back_from_their_file(tmp_path: Path) -> None:
    batches = pairs().evaluation(4)
    batches.save(tmp_path / "batches.npz")
    again = Batches.load(tmp_path / "batches.npz")
    assert set(again.inputs) == set(PAIR_INPUTS)
    assert all((again.inputs[name] == batches.inputs[name]).all() for name in PAIR_INPUTS)
    assert (again.targets == batches.targets).all()
    assert (again.weights == batches.weights).all()


def test_rows_keep_their_labels_and_what_fills_a_batch_up_does_not_count() -> None:
    arrays = SPLITS["classification"]["training"]
    batches = labelled().evaluation(7)
    assert batches.targets.shape == batches.weights.shape == (58, 7), "400 examples, one target each"
    counted = batches.weights > 0
    assert counted.sum() == 400
    assert (batches.targets[counted] == arrays["labels"]).all()
    assert (batches.inputs["tokens"][counted] == arrays["tokens"]).all()
    assert (batches.inputs["tokens"][~counted] == arrays["tokens"][0]).all()


def test_masks_say_where_padding_is() -> None:
    arrays = SPLITS["classification"]["training"]
    batch = labelled("token_mask", "attention_mask").rows(np.arange(400))
    assert (batch.inputs["token_mask"].sum(1) == arrays["lengths"]).all()
    mask_BTT = batch.inputs["attention_mask"]
    assert mask_BTT.any(-1).all(), "nobody attends to nothing"
    assert not mask_BTT[arrays["lengths"] == 4][:, :, 4:].any(), "nobody attends to padding"
    assert (mask_BTT[:, :4, :4] == np.tri(4)).all(), "the data's own mask is kept"
    assert labelled("token_mask", lengths=np.full(400, 12)).rows(np.arange(3)).inputs["token_mask"].all()


def test_a_mask_that_the_data_lacks_is_named() -> None:
    arrays = {name: array for name, array in SPLITS["classification"]["training"].items() if name != "attention_mask"}
    with pytest.raises(DataError, match="custom_mask needs the array `attention_mask`"):
        LabelledSplit(arrays, Form(("tokens", "attention_mask"), 12, 12, {}))


def test_a_decoder_reads_the_start_and_says_the_end() -> None:
    batch = pairs(source=9, target=10).rows(np.arange(500))
    for row in range(500):
        source = [token for token in batch.inputs["source"][row].tolist() if token]
        wanted = [token + 2 for token in reversed(source)]
        length = len(wanted)
        assert batch.targets[row].tolist() == [*wanted, 2] + [0] * (9 - length)
        assert batch.inputs["tokens"][row].tolist() == [1, *wanted] + [0] * (9 - length)
        assert batch.weights[row].tolist() == [1] * (length + 1) + [0] * (9 - length)
        assert batch.inputs["source_mask"][row].tolist() == [1] * length + [0] * (9 - length)


@pytest.mark.parametrize(("lengths", "said"), [({"source": 6}, "a source has 7"), ({"target": 7}, "its end has 8")])
def test_pairs_longer_than_the_model_are_refused(lengths: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        pairs(**lengths)


def test_rows_of_another_length_and_missing_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the rows have 12 tokens, the model takes 16"):
        labelled(length=16)
    np.savez(tmp_path / "split.npz", tokens=np.zeros((2, 2), int))
    with pytest.raises(DataError, match="lacks the array 'labels', which classification needs"):
        load_split(tmp_path / "split.npz", "classification", Form(("tokens",), 2, 2, {}))


@pytest.mark.parametrize("split", [labelled(), pairs()])
def test_training_passes_over_every_example_in_a_new_order_and_repeats_itself(split: Split) -> None:
    def targets(seed: int, batches: int) -> list[bytes]:
        source = split.training(np.random.default_rng(seed), 50)
        return [row.tobytes() for _ in range(batches) for row in _rows(next(source))]

    def _rows(batch) -> list[np.ndarray]:
        inputs = batch.inputs
        return [np.concatenate([inputs[name][row] for name in inputs]) for row in range(len(batch))]

    everything = sorted(row.tobytes() for row in _rows(split.rows(np.arange(len(split)))))
    passes = len(split) // 50
    twice = targets(0, 2 * passes)
    assert sorted(twice[: len(split)]) == sorted(twice[len(split) :]) == everything
    assert twice[: len(split)] != twice[len(split) :]
    assert twice == targets(0, 2 * passes)
    assert twice != targets(1, 2 * passes)


def test_a_measurement_rotates_over_some_batches() -> None:
    inputs = data_inputs(pairs("validation").evaluation(4))
    assert {name: array.shape for name, array in inputs.items()} == {
        "source": (4, 4, 7),
        "source_mask": (4, 4, 7),
        "tokens": (4, 4, 8),
    }
