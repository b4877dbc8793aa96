"""The built decoder: causality, initialization, post-norm, dropout; and no declared parameter is without effect."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from layers.modules.model import build
from layers.modules.positions import Sinusoids


def logits_of(model, seed=0, length=12):
    torch.manual_seed(seed)
    module = build(model).eval()
    tokens = torch.randint(0, 29, (2, length), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    with torch.no_grad():
        return module, tokens, module(tokens)


def test_logits_have_a_column_for_each_row_of_the_embedding(completed):
    _, _, logits = logits_of(completed({"embedding.num_embeddings": 64}))
    assert logits.shape == (2, 12, 64)
    assert logits.dtype == torch.float32


def test_a_future_token_never_changes_a_past_logit(models):
    for model in itertools.islice(models(4), 40):
        module, tokens, before = logits_of(model)
        changed = tokens.clone()
        changed[:, 7:] = (changed[:, 7:] + 3) % 29
        with torch.no_grad():
            after = module(changed)
        torch.testing.assert_close(after[:, :7], before[:, :7], rtol=0, atol=1e-5)
        assert not torch.equal(after[:, 7:], before[:, 7:])


def test_shorter_sequences_give_the_same_logits(completed):
    for kind in ("learned_absolute", "rope_gpt_neox", "rope_gptj"):
        module, tokens, whole = logits_of(completed({"attention.position_embedding_type": kind}))
        with torch.no_grad():
            torch.testing.assert_close(module(tokens[:, :5]), whole[:, :5], rtol=1e-5, atol=1e-6)


def test_longer_sequences_than_positions_are_refused(completed):
    module, _, _ = logits_of(completed())
    with pytest.raises(ValueError, match="13 tokens are more than max_position_embeddings = 12"):
        module(torch.zeros(1, 13, dtype=torch.int32))


def test_a_tied_head_is_the_embedding_table(completed):
    tied, _, _ = logits_of(completed())
    untied, _, _ = logits_of(completed({"tie_embeddings": False}))
    assert tied.head.linear is None
    assert untied.head.linear is not None
    assert untied.head.linear.weight is not untied.embedding.table.weight


def test_the_same_seed_gives_the_same_weights(completed):
    assert torch.equal(logits_of(completed(), seed=5)[2], logits_of(completed(), seed=5)[2])
    assert not torch.equal(logits_of(completed(), seed=5)[2], logits_of(completed(), seed=6)[2])


def test_weights_start_as_in_gpt2(completed):
    torch.manual_seed(0)
    module = build(completed({"hidden_size": 256, "num_layers": 8}))
    weights = dict(module.named_parameters())
    residual = 0.02 / (2 * 8) ** 0.5
    for name, deviation in {
        "embedding.table.weight": 0.02,
        "stack.layers.3.attention.qkv.weight": 0.02,
        "stack.layers.3.mlp.fc.weight": 0.02,
        "stack.layers.3.attention.dense.weight": residual,
        "stack.layers.3.mlp.proj.weight": residual,
    }.items():
        assert weights[name].std().item() == pytest.approx(deviation, rel=0.05), name
    assert not weights["stack.layers.0.attention.qkv.bias"].any()
    assert torch.equal(weights["stack.layers.0.input_layernorm.weight"], torch.ones(256))


def test_an_untrained_model_guesses_uniformly(completed):
    _, tokens, logits = logits_of(completed())
    targets = (tokens + 11) % 29
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 29), targets.reshape(-1).long())
    assert loss.item() == pytest.approx(torch.log(torch.tensor(29.0)).item(), abs=0.1)


def test_post_norm_normalizes_what_leaves_a_block(completed):
    module, tokens, _ = logits_of(completed({"norm_position": "post"}))
    left = []
    module.stack.layers[-1].register_forward_hook(lambda _module, _inputs, output: left.append(output))
    module(tokens)
    torch.testing.assert_close(left[0].mean(-1), torch.zeros(2, 12), rtol=0, atol=1e-5)
    torch.testing.assert_close(left[0].std(-1, correction=0), torch.ones(2, 12), rtol=0, atol=1e-2)
    assert module.stack.final_layernorm is None


@pytest.mark.parametrize(("initialization", "deviation"), [("gpt2", 0.02), ("fan_in", 1 / math.sqrt(64))])
def test_matrices_start_as_asked_and_what_writes_to_the_residual_stream_smaller(completed, initialization, deviation):
    torch.manual_seed(0)
    module = build(completed({"hidden_size": 64, "num_layers": 2}), initialization=initialization)
    block = module.stack.layers[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(deviation, rel=0.05)
    # Two layers, each with two writers.
    assert block.attention.dense.weight.std().item() == pytest.approx(deviation / 2, rel=0.05)
    assert module.embedding.table.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_dropout_acts_in_training_only(completed):
    torch.manual_seed(0)
    module = build(completed(), dropout=0.5)
    tokens = torch.zeros(1, 12, dtype=torch.int32)
    assert not torch.equal(module(tokens), module(tokens))
    module.eval()
    assert torch.equal(module(tokens), module(tokens))


def test_layers_that_share_weights_start_as_small_as_the_layers_that_add(completed):
    torch.manual_seed(0)
    module = build(completed({"hidden_size": 64, "num_layers": 4, "layers_sharing_weights": 2}))
    assert len(module.stack.layers) == 2
    # Four layers, each with two writers, of which two have weights.
    assert module.stack.layers[1].attention.dense.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.05)


def test_layers_that_share_weights_run_one_after_the_other(completed):
    values = {"num_layers": 4, "attention.position_embedding_type": "relative"}
    shared = build(completed({**values, "layers_sharing_weights": 2})).eval()
    apart = build(completed(values)).eval()
    weights = shared.state_dict()
    for name in list(apart.state_dict()):
        number = name.split(".")[2] if name.startswith("stack.layers.") else None
        if number is not None:
            weights[name] = shared.state_dict()[name.replace(f".{number}.", f".{int(number) // 2}.", 1)]
    apart.load_state_dict(weights)
    tokens = torch.arange(12, dtype=torch.int32)[None]
    with torch.no_grad():
        assert torch.equal(shared(tokens), apart(tokens))


def test_sinusoids_are_the_papers():
    """Vaswani et al. 2017, section 3.5, with its even channels (sines) before its odd ones."""
    table = Sinusoids(50, 7).table
    for position in (0, 1, 49):
        for channel in range(7):
            angle = position / 10_000 ** (2 * (channel // 2) / 7)
            place = channel // 2 if channel % 2 == 0 else 4 + channel // 2
            expected = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            assert table[position, place].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("positions", ["learned_absolute", "sinusoidal", "rope_gpt_neox", "relative", "alibi"])
def test_a_model_that_inference_has_used_can_be_trained(completed, positions):
    module = build(completed({"attention.position_embedding_type": positions}))
    tokens = torch.zeros((2, 12), dtype=torch.int32)
    with torch.inference_mode():
        module(tokens)
    module(tokens).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
