"""TorchWhisper with our search gives the tokens of transformers' own generate.

Where the semantics differ, on purpose: generate samples among its 50 likeliest tokens, ours among all; generate
measures the compression ratio on token bytes, ours on the text as openai-whisper does; with beams, both leave the
scores unnormalised after the token rules.
"""

from dataclasses import replace

import numpy as np
import pytest

from whisper_lab import thinning
from whisper_lab.decoding import Options, decode

NEW_TOKENS = 48


def generate(runtime, features: np.ndarray, **settings) -> list[list[int]]:
    """transformers' own answer per window, prompt included, cut after its first end token."""
    import torch

    with torch.no_grad():
        found = runtime.model.generate(torch.from_numpy(features).double(), force_unique_generate_call=True,
                                       max_new_tokens=NEW_TOKENS, **settings).tolist()
    end = runtime.rules.end
    return [row[:row.index(end) + 1] if end in row else row for row in found]


def ours(runtime, features: np.ndarray, options: Options, **settings) -> list[list[int]]:
    """Our answer in the same form."""
    results = decode(runtime, features, replace(options, max_tokens=NEW_TOKENS), **settings)
    end = [runtime.rules.end]
    return [result.prompt + result.tokens + end * (len(result.tokens) < NEW_TOKENS) for result in results]


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("language", ["nl", None])
def test_tokens_equal_generate(random_runtimes, noise_features, timestamps, beams, language):
    for runtime in random_runtimes:
        expected = generate(runtime, noise_features, language=language, task="transcribe", num_beams=beams,
                            return_timestamps=timestamps)
        options = Options(language=language, beams=beams, timestamps=timestamps)
        assert ours(runtime, noise_features, options) == expected


def test_the_comparison_covers_rows_that_end_at_different_steps(random_runtimes, noise_features):
    rows = [row for runtime in random_runtimes for row in ours(runtime, noise_features, Options(language="en"))]
    lengths = [len(row) for row in rows]
    assert len(set(lengths)) > 2 and max(lengths) == 4 + NEW_TOKENS
    assert len({token for row in rows for token in row}) > 20  # not one token over and over


@pytest.mark.parametrize("beams", [1, 3])
def test_prompt_equals_generate(random_runtimes, noise_features, beams):
    import torch

    before = [10, 20, 30, 40]
    for runtime in random_runtimes[:2]:
        prompt = torch.tensor([runtime.rules.previous, *before])
        expected = generate(runtime, noise_features[:1], language="en", task="translate", prompt_ids=prompt,
                            num_beams=beams)
        options = Options(language="en", task="translate", beams=beams)
        assert ours(runtime, noise_features[:1], options, previous=[before]) == expected


def test_length_penalty_equals_generate(random_runtimes, noise_features):
    for penalty in (0.0, 2.0):
        expected = generate(random_runtimes[0], noise_features, language="en", task="transcribe", num_beams=3,
                            length_penalty=penalty)
        options = Options(language="en", beams=3, length_penalty=penalty)
        assert ours(random_runtimes[0], noise_features, options) == expected


def test_average_log_probability_equals_generates_scores(random_runtimes, noise_features):
    """Greedy: the mean log-softmax of the processed scores at the chosen tokens, the end token counted."""
    import torch

    runtime = random_runtimes[1]
    with torch.no_grad():
        found = runtime.model.generate(torch.from_numpy(noise_features[:1]).double(), language="en", task="transcribe",
                                       force_unique_generate_call=True, return_dict_in_generate=True,
                                       output_scores=True, max_length=runtime.rules.max_positions)
    scores = torch.stack(found.scores)[:, 0].log_softmax(-1)
    tokens = found.sequences[0, -len(scores):]
    expected = scores[torch.arange(len(scores)), tokens].mean().item()
    result = decode(runtime, noise_features[:1], Options(language="en"))[0]
    assert result.avg_logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("options", [Options(language="en"), Options(beams=3), Options(temperatures=(0.8,), seed=3),
                                     Options(timestamps=True, temperatures=(0.0, 0.5, 1.0))])
def test_a_window_alone_and_in_a_batch_give_the_same(random_runtimes, noise_features, options):
    runtime = random_runtimes[0]
    together = decode(runtime, noise_features, options)
    for i, expected in enumerate(together):
        alone = decode(runtime, noise_features[i:i + 1], options)[0]
        assert replace(alone, avg_logprob=0, no_speech_prob=0, language_probability=0) == \
            replace(expected, avg_logprob=0, no_speech_prob=0, language_probability=0)
        assert alone.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-4)


def test_different_prompts_in_one_batch(random_runtimes, noise_features):
    """Windows with and without previous text, of different lengths, are decoded in one call."""
    runtime, options = random_runtimes[2], Options(language="en")
    previous = [[], [5, 6, 7], [5, 6, 7, 8, 9]]
    together = decode(runtime, noise_features, options, previous=previous)
    for i, result in enumerate(together):
        assert result.tokens == decode(runtime, noise_features[i:i + 1], options, previous=previous[i:i + 1])[0].tokens


def test_step_by_step_equals_all_at_once(random_runtimes, noise_features):
    """The cache changes nothing: logits of tokens fed one at a time, in beams, equal those of one call."""
    runtime = random_runtimes[0]
    cross = runtime.encode(noise_features[:2])
    ids = np.random.default_rng(1).integers(0, 500, (2, 9))
    expected, _ = runtime.step(ids, cross, None)
    logits, cache = runtime.step(ids[:, :3], cross, None)
    cache = runtime.reorder(cache, np.array([0, 0, 1, 1]))  # two beams each
    for i in range(3, 9):
        logits, cache = runtime.step(np.repeat(ids[:, i:i + 1], 2, axis=0), cross, cache)
        np.testing.assert_allclose(logits[:, 0], np.repeat(expected[:, i], 2, axis=0), atol=2e-3)


def test_attention_equals_transformers_cross_attention(random_runtimes, noise_features):
    import torch

    runtime = random_runtimes[0]
    ids = np.arange(12)[None]
    found = runtime.attention(ids, runtime.encode(noise_features[:1]))
    assert found.shape == (len(runtime.rules.alignment_heads), 12, runtime.model.config.max_source_positions)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-4)
    runtime.model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = runtime.model(torch.from_numpy(noise_features[:1]).double(), decoder_input_ids=torch.from_numpy(ids),
                                 output_attentions=True).cross_attentions
    runtime.model.set_attn_implementation("sdpa")
    for row, (layer, head) in zip(found, runtime.rules.alignment_heads, strict=True):
        np.testing.assert_allclose(row, expected[layer][0, head].numpy(), atol=1e-4)


@pytest.mark.parametrize("positions", [7, 30])
def test_a_shorter_window_is_what_transformers_makes_of_a_smaller_model(random_runtimes, noise_features, positions,
                                                                        monkeypatch):
    """One whose window is no longer than that, with the beginning of the same table of positions: where no positions
    stand for the rest of the window."""
    import copy

    import torch

    monkeypatch.setattr(thinning, "MOST", 0)
    runtime, features = random_runtimes[0], noise_features[:, :, :2 * positions]
    encoder = copy.deepcopy(runtime.model.model.encoder)
    encoder.config.max_source_positions = positions
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:positions])
    with torch.no_grad():
        right = encoder(torch.from_numpy(features).to(runtime.model.dtype)).last_hidden_state
    found = runtime.encode(features)
    assert found.shape[1] == positions and torch.allclose(found, right, atol=1e-6)
