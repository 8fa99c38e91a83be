"""Token rules against transformers' processors, and the search over a scripted runtime whose logits are known."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from whisper_lab import decoding
from whisper_lab.console import LabError
from whisper_lab.decoding import (
    AUTO,
    FALLBACK_TEMPERATURES,
    WIDE,
    Options,
    Result,
    decode,
    decode_encoded,
    detect_language,
    goes_round,
    is_silence,
    least_wrong,
    looks_wrong,
    rate,
    temperatures,
    tries,
)
from whisper_lab.tokenizer import Tokenizer, tokenizer_document
from whisper_lab.tokens import TokenRules, log_softmax, logsumexp


@pytest.fixture(scope="module")
def rules(nano):
    return TokenRules.from_folder(nano)


def test_ids_come_from_the_checkpoint(rules, nano):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(nano / "tokenizer.json"))
    for token, name in [(rules.start, "<|startoftranscript|>"), (rules.end, "<|endoftext|>"),
                        (rules.no_speech, "<|nospeech|>"), (rules.previous, "<|startofprev|>"),
                        (rules.languages["nl"], "<|nl|>"), (rules.tasks["translate"], "<|translate|>"),
                        (rules.timestamp_begin, "<|0.00|>")]:
        assert tokenizer.id_to_token(token) == name
    window = json.loads((nano / "preprocessor_config.json").read_text())["chunk_length"]
    last = rules.timestamp_begin + round(window / rules.timestamp_step)
    assert tokenizer.id_to_token(last) == f"<|{window:.2f}|>" and last < rules.vocab_size


def test_ids_from_the_tokenizer_where_generation_config_says_little(rules, nano, tmp_path):
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        shutil.copy(nano / name, tmp_path)
    bare = TokenRules.from_folder(tmp_path)
    for name in ("start", "end", "no_timestamps", "no_speech", "previous", "languages", "tasks", "timestamp_step"):
        assert getattr(bare, name) == getattr(rules, name)


def test_ids_of_a_tokenizer_as_transformers_4_saves_it(rules, nano, tmp_path):
    """vocab.json, merges.txt and added_tokens.json: what many fine-tuned checkpoints have, and no tokenizer.json."""
    for name in ("config.json", "preprocessor_config.json", "vocab.json", "merges.txt"):
        shutil.copy(nano / name, tmp_path)
    whole = json.loads((nano / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in whole["added_tokens"]}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    found = TokenRules.from_folder(tmp_path)
    for name in ("start", "end", "no_timestamps", "no_speech", "previous", "languages", "tasks"):
        assert getattr(found, name) == getattr(rules, name)
    assert tokenizer_document(tmp_path)["model"]["vocab"] == whole["model"]["vocab"]


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_incomplete_checkpoint(nano, tmp_path, missing):
    for name in {"config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json"} - {missing}:
        shutil.copy(nano / name, tmp_path)
    with pytest.raises(LabError, match=missing):
        TokenRules.from_folder(tmp_path)


def test_prompts(rules):
    start, nl, no_times = rules.start, rules.languages["nl"], rules.no_timestamps
    assert rules.prompt("nl") == [start, nl, rules.tasks["transcribe"], no_times]
    assert rules.prompt("<|nl|>", "translate", timestamps=True) == [start, nl, rules.tasks["translate"]]
    tail = list(range(200))[-(rules.max_positions // 2 - 1):]
    assert rules.prompt("nl", previous=range(200))[:-4] == [rules.previous, *tail]
    assert rules.answer([*rules.prompt("nl", previous=[1, 2]), 7, 8, rules.end, rules.end]) == [7, 8]
    assert rules.answer([7, 8]) == [7, 8]


@pytest.mark.parametrize("wrong", [{"language": "xx"}, {"task": "sing"}])
def test_prompts_that_the_checkpoint_cannot_have(rules, wrong):
    with pytest.raises(LabError):
        rules.prompt(**wrong)


def test_english_only_checkpoint(rules, nano, tmp_path):
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        shutil.copy(nano / name, tmp_path)
    generation = json.loads((nano / "generation_config.json").read_text()) | {"is_multilingual": False}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    english = TokenRules.from_folder(tmp_path)
    assert english.prompt() == english.prompt("en") == [rules.start, rules.no_timestamps]
    for wrong in ({"language": "nl"}, {"task": "translate"}):
        with pytest.raises(LabError):
            english.prompt(**wrong)


def test_special_tokens_in_a_prompt_are_refused(rules, nano):
    tokenizer = Tokenizer.from_folder(nano)
    tokens = rules.prompt_tokens(tokenizer, "Anna and Bob ")
    assert rules.text(tokenizer, tokens) == "Anna and Bob"
    with pytest.raises(LabError):
        rules.prompt_tokens(tokenizer, "hello <|nl|>")


@pytest.mark.parametrize("timestamps", [False, True])
def test_rules_equal_transformers_processors(rules, nano, timestamps):
    """Random scores after random histories, 400 of them: the same entries are forbidden, the others untouched."""
    import torch

    from whisper_lab.checkpoints import import_transformers

    import_transformers()  # first: it hides a torchaudio that cannot load
    from transformers import GenerationConfig
    from transformers.generation.logits_process import (
        SuppressTokensAtBeginLogitsProcessor,
        SuppressTokensLogitsProcessor,
        WhisperTimeStampLogitsProcessor,
    )

    generator, seen = np.random.default_rng(0), set()
    config = GenerationConfig.from_pretrained(nano)
    prompt = rules.prompt("en", timestamps=timestamps)
    processors = [SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, len(prompt)),
                  SuppressTokensLogitsProcessor(config.suppress_tokens)]
    if timestamps:
        processors.append(WhisperTimeStampLogitsProcessor(config, begin_index=len(prompt)))
    for trial in range(100):
        history = _history(generator, rules, length=trial % 6, rows=4)
        scores = generator.normal(0, 3, (4, rules.vocab_size)).astype(np.float32)
        scores[2:, rules.timestamp_begin:] -= 6  # rows where text is likelier than all timestamps together
        expected, ids = torch.from_numpy(scores.copy()), torch.tensor([[*prompt, *row] for row in history.tolist()])
        for processor in processors:
            expected = processor(ids, expected)
        found = rules.apply(scores.copy(), history, timestamps)
        np.testing.assert_array_equal(found, expected.numpy())
        seen |= {(bool(np.isinf(row[:rules.end]).all()), bool(np.isinf(row[rules.timestamp_begin:]).all()))
                 for row in found}
    # With timestamps: rows where text is forbidden, where timestamps are, and where neither is.
    assert seen == ({(True, False), (False, True), (False, False)} if timestamps else {(False, False)})


def _history(generator, rules, length, rows):
    """Tokens after a prompt as they could have been: text and timestamps that do not decrease."""
    text = generator.integers(0, rules.end, (rows, length))
    steps = np.sort(generator.integers(0, rules.vocab_size - rules.timestamp_begin, (rows, length)), axis=1)
    return np.where(generator.random((rows, length)) < 0.5, rules.timestamp_begin + steps, text)


def test_max_initial_timestamp(rules):
    from dataclasses import replace

    scores = np.zeros((1, rules.vocab_size), np.float32)
    limited = replace(rules, max_initial_timestamp=3).apply(scores, np.zeros((1, 0), np.int64), True)
    assert np.flatnonzero(np.isfinite(limited[0])).tolist() == [rules.timestamp_begin + i for i in range(4)]


def test_tokens_added_behind_the_timestamps_are_text(rules):
    """A fine-tuned vocabulary has them; they follow the rules of text, and are shown."""
    added = rules.timestamp_end + 2
    bigger = replace(rules, vocab_size=added + 1)
    assert bigger.text_tokens([5, rules.end, rules.timestamp_end, added]) == [5, added]
    assert bigger.is_timestamp(rules.timestamp_end) and not bigger.is_timestamp(added)

    def allowed(*generated, likely=added):
        scores = np.full((1, bigger.vocab_size), -20, np.float32)
        scores[0, likely] = 0
        return np.isfinite(bigger.apply(scores, np.array([generated], np.int64), True)[0])

    begin = rules.timestamp_begin
    assert not allowed()[added]  # a timestamp comes first
    assert allowed(begin)[added] and not allowed(begin)[begin + 4]  # then text
    assert allowed(begin, added)[[added, 5, begin + 4]].all() and not allowed(begin, added)[begin]
    assert not allowed(begin, added, begin + 9)[added]  # half a pair: its other half or the end
    assert not allowed(begin, added, likely=begin + 9)[added]  # a timestamp is likelier than any text


def test_log_softmax_is_stable():
    rows = np.array([[1e4, 0, -1e4], [-np.inf, 0, 0], [3, 3, 3]], np.float32)
    np.testing.assert_allclose(np.exp(log_softmax(rows)).sum(axis=-1), 1, rtol=1e-6)
    assert log_softmax(rows)[1, 0] == -np.inf
    assert logsumexp(np.full((1, 4), -np.inf, np.float32))[0] == -np.inf


class Scripted:
    """A runtime whose next token depends on the last token only: logits[last]. Counts the rows it was asked for."""

    def __init__(self, rules, logits, tokenizer=None):
        self.rules, self.logits, self.tokenizer, self.rows = rules, logits, tokenizer or Spelling(), []

    def encode(self, features):
        return features

    def step(self, input_ids, cross, cache):
        assert len(input_ids) % len(cross) == 0  # batch = audio x beams
        past = np.zeros((len(input_ids), 0), np.int64) if cache is None else cache
        self.rows.append(len(input_ids))
        shift = np.repeat(cross[:, 0, :1], len(input_ids) // len(cross), axis=0)  # each window has its own end bias
        logits = self.logits[input_ids].copy()
        logits[:, :, self.rules.end] += shift
        return logits, np.concatenate([past, input_ids], axis=1)

    def reorder(self, cache, rows):
        return cache[rows]

    def select(self, cross, audios):
        return cross[audios]


class Spelling:
    """A tokenizer that writes token ids."""

    def decode(self, tokens):
        return " ".join(map(str, tokens))


@pytest.fixture
def scripted(rules):
    """Seven text tokens with seeded transition scores; the end comes in time or late, as the window's bias says."""
    logits = np.full((rules.vocab_size, rules.vocab_size), -50, np.float32)
    logits[:, :7] = np.random.default_rng(3).normal(0, 1.5, (rules.vocab_size, 7))
    logits[:, rules.end] = -1
    return Scripted(rules, logits)


def windows(*end_bias):
    return np.array(end_bias, np.float32)[:, None, None] * np.ones((1, 1, 1), np.float32)


def best_sequence(runtime, bias, length, given=()):
    """The likeliest sequence of at most `length` tokens after those given, by mean log-probability: all are tried."""
    rules, best = runtime.rules, (-np.inf, None)
    last = [*rules.prompt("en"), *given][-1]
    frontier = [([*given], 0.0, last)]
    for _ in range(length):
        following = []
        for tokens, score, last in frontier:
            row = runtime.logits[last][None].copy()
            row[0, rules.end] += bias
            logs = rules.apply(log_softmax(row), np.array([tokens], np.int64).reshape(1, -1), False)[0]
            mean = (score + logs[rules.end]) / (len(tokens) - len(given) + 1)
            best = max(best, (mean, tokens), key=lambda pair: pair[0])
            following += [([*tokens, t], score + logs[t], t) for t in range(7)]
        frontier = following
    return max(best, *(((score / length), tokens) for tokens, score, _ in frontier), key=lambda pair: pair[0])


@pytest.mark.parametrize("rows, n, count", [(1, 5, 5), (2, 64, 10), (1, 1000, 10), (3, 103_737, 10), (1, 640, 9)])
def test_the_largest_are_those_of_a_full_sort(rows, n, count):
    generator = np.random.default_rng(n)
    scores = generator.permuted(np.tile(np.arange(n, dtype=np.float32), (rows, 1)), axis=1)
    scores[:, generator.integers(0, n, n // 2)] = -np.inf  # as suppressed tokens are
    places, values = decoding._largest(scores, count)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    finite = np.isfinite(values)
    assert (places == expected)[finite].all() and (values == np.take_along_axis(scores, expected, axis=1)).all()


@pytest.mark.parametrize("given", [[], [3], [2, 6, 0]])
def test_a_wide_beam_finds_the_best_sequence(scripted, given):
    """With as many beams as there are beginnings, beam search is exhaustive search; also of a text that has begun."""
    for bias in (0.0, 1.0, 2.0):
        score, tokens = best_sequence(scripted, bias, 3, given)
        options = Options(language="en", beams=343, max_tokens=3, patience=10.0)
        result = decode_encoded(scripted, scripted.encode(windows(bias)), 1, options, given=given)[0]
        assert result.tokens == tokens and result.tokens[:len(given)] == given
        assert result.avg_logprob == pytest.approx(score, abs=1e-4) and len(result.logprobs) == len(tokens) + 1


def test_beams_are_no_worse_than_greedy(scripted):
    greedy, beam = (decode(scripted, windows(2.0, 2.6), Options(language="en", beams=beams, max_tokens=12))
                    for beams in (1, 6))
    for one, many in zip(greedy, beam, strict=True):
        assert many.avg_logprob >= one.avg_logprob - 1e-4


def test_finished_windows_leave_the_batch(scripted):
    """The second window is done early (with beams, when none can improve): from then on the other is alone."""
    for beams in (1, 3):
        scripted.rows = []
        results = decode(scripted, windows(-20.0, 60.0), Options(language="en", beams=beams, max_tokens=9))
        assert results[1].tokens == [] and len(results[0].tokens) == 9
        rated = 0 if beams == 1 else 2  # the texts that beams found are judged once more, each alone
        assert scripted.rows[0] == 2 and scripted.rows[4:] == [beams] * 5 + [1] * rated


def test_sampling_follows_the_probabilities(rules):
    logits = np.full((rules.vocab_size, rules.vocab_size), -np.inf, np.float32)
    logits[:, :3] = np.log([0.2, 0.3, 0.5])
    runtime = Scripted(rules, logits)
    drawn = [decode(runtime, windows(0.0), Options("en", max_tokens=60, temperatures=(1.0,), seed=seed))[0].tokens
             for seed in range(40)]
    shares = np.bincount(np.concatenate(drawn), minlength=3) / sum(map(len, drawn))
    np.testing.assert_allclose(shares, [0.2, 0.3, 0.5], atol=0.04)
    assert drawn[0] != drawn[1]
    again = decode(runtime, windows(0.0), Options("en", max_tokens=60, temperatures=(1.0,), seed=0))[0].tokens
    assert again == drawn[0]


def test_fallback_tries_higher_temperatures_for_the_wrong_window_only(rules):
    """Token 5 follows itself for ever unless the window's bias ends it: repetition, so it is tried hotter."""
    logits = np.full((rules.vocab_size, rules.vocab_size), -50, np.float32)
    logits[:, 5], logits[:, :5], logits[:, rules.end] = 6, 5, 4
    options = Options("en", temperatures=(0.0, 0.5, 1.0), logprob_threshold=None)
    looping, short = decode(Scripted(rules, logits), windows(0.0, 30.0), options)
    assert short.temperature == 0.0 and short.tokens == []
    assert looping.temperature > 0 and len(set(looping.tokens)) > 1
    without = decode(Scripted(rules, logits), windows(0.0), Options("en", compression_ratio_threshold=None,
                                                                    logprob_threshold=None))[0]
    assert set(without.tokens) == {5} and without.compression_ratio > 2.4


def test_a_doubtful_text_is_searched_again_with_beams(scripted, monkeypatch):
    """What greedy search is sure of stays, and no beam is spent on it; how doubtful a text is, greedy search says."""
    monkeypatch.setattr(decoding, "SHORTER", 0.0)  # how long these texts are means nothing
    auto = Options("en", beams=AUTO, max_tokens=12, logprob_threshold=None)
    sure, doubtful = decode(scripted, windows(60.0, 2.0), auto)
    assert (sure.beams, doubtful.beams) == (1, WIDE) and sure.tokens == [] and WIDE in scripted.rows
    alone = decode(scripted, windows(2.0), replace(auto, beams=WIDE))[0]
    greedy = decode(scripted, windows(2.0), replace(auto, beams=1))[0]
    assert doubtful.tokens == alone.tokens and doubtful.text_logprob == greedy.text_logprob
    assert decode(scripted, windows(2.0), replace(auto, temperatures=(0.7,)))[0].beams == 1


@pytest.fixture
def circling(rules, monkeypatch):
    """Words 1 2 3 1 2 3 ... without an end, unless the window's bias is large; `seen`: the length of each result."""
    logits = np.full((rules.vocab_size, rules.vocab_size), -50, np.float32)
    logits[:, 1] = logits[1, 2] = logits[2, 3] = 5
    logits[1, 1] = logits[2, 1] = -50
    logits[:, rules.end] = -5
    runtime, search = Scripted(rules, logits), decoding._search
    runtime.seen = []

    def noted(*given):
        results = search(*given)
        runtime.seen += [len(result.tokens) for result in results]
        return results

    monkeypatch.setattr(decoding, "_search", noted)
    return runtime


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_that_goes_round_is_left_where_another_search_follows(circling, beams):
    """And only there: what stands is written to its end. A neighbour is not disturbed."""
    bias, once = windows(0.0, 60.0), Options("en", beams=beams, temperatures=(0.0,))
    room = circling.rules.max_positions - 4

    def lengths(**changes):
        circling.seen = []
        decode(circling, bias, replace(once, **changes))
        return circling.seen

    assert lengths() == [room, 0], "nothing follows it"
    first, neighbour, *_, last = lengths(temperatures=(0.0, 0.2))
    assert 64 <= first < 80 and neighbour == 0 and last == room
    assert lengths(temperatures=(0.0, 0.2), compression_ratio_threshold=None) == [room, 0], "nothing is wrong with it"
    (hopeless,) = decode_encoded(circling, windows(0.0), 1, once, hopeless=lambda result: True)
    assert 64 <= len(hopeless.tokens) < 80 and hopeless.compression_ratio > 2.4


def test_of_what_is_hopeless_no_other_search_is_made(circling):
    seen = []
    options = Options("en", beams=AUTO, temperatures=FALLBACK_TEMPERATURES)
    (found,) = decode_encoded(circling, windows(0.0), 1, options, hopeless=lambda result: not seen.append(result))
    assert len(seen) == 1 and found.beams == 1 and set(circling.rows) == {1} and len(circling.rows) < 80


@pytest.mark.parametrize("tokens, expected", [
    ([7] * 64, True), ([7] * 63, False), ([*range(16)] * 4, True), ([*range(17)] * 8, False),
    ([9, *range(100), *[1, 2, 3] * 22], True), ([*[1, 2, 3] * 22, 4], False), ([], False)])
def test_a_text_goes_round_where_its_last_words_are_one_short_round(tokens, expected):
    assert goes_round(tokens) is expected


def test_the_searches_of_a_window_in_turn():
    def turns(**options):
        return [(search.beams, *search.temperatures) for search in tries(Options(**options))]

    assert turns() == [(1, 0.0)] and turns(beams=AUTO) == [(1, 0.0), (WIDE, 0.0)]
    assert turns(beams=3, temperatures=(0.0, 0.2)) == [(3, 0.0), (1, 0.2)]
    assert turns(beams=AUTO, temperatures=(0.0, 0.2, 0.4)) == [(1, 0.0), (WIDE, 0.0), (1, 0.2), (1, 0.4)]
    assert turns(beams=AUTO, temperatures=(0.7,)) == [(1, 0.7)]


def test_where_every_attempt_looks_wrong_the_likeliest_that_does_not_repeat_itself_is_kept():
    def attempt(temperature, logprob, ratio):
        return Result([], "", logprob, 0.0, temperature, ratio, "en", None)

    circles, unsure, wild = attempt(0.0, -0.1, 9.0), attempt(0.2, -1.2, 1.0), attempt(1.0, -4.0, 1.0)
    assert least_wrong([circles, unsure, wild], Options()) is unsure
    assert least_wrong([circles, unsure, attempt(0.4, -0.9, 1.0)], Options()).temperature == 0.4  # not wrong at all
    assert least_wrong([attempt(0.2, -0.3, 9.0), circles], Options()) is circles


@pytest.mark.parametrize("text, ratio, stays", [
    ("one sentence", 1.0, True), ("one sentence and most of another one, as it seems", 1.0, False),
    ("one sentence", 9.0, False)])
def test_beams_that_pass_over_a_sentence_leave_the_greedy_text(text, ratio, stays):
    """Whole sentences are missing in the likelier text; where the greedy one goes round in a loop, that is as well."""
    said = "one sentence and then another, as greedy search has it"
    greedy = Result([1], said, -0.4, 0.0, 0.0, ratio, "en", None, text_logprob=-0.4)
    beams = Result([2], text, -0.3, 0.0, 0.0, 1.0, "en", None, text_logprob=-0.3, beams=WIDE)
    found = least_wrong([greedy, beams], Options())
    assert (found.text, found.beams, found.text_logprob) == (said if stays else text, WIDE, -0.4)


@pytest.mark.parametrize("options", [Options(language="en", max_tokens=12),
                                     Options(language="en", max_tokens=12, timestamps=True)])
def test_a_text_that_is_given_its_own_beginning_goes_on_as_before(random_runtimes, noise_features, options):
    """What 09 does with text that is committed."""
    runtime = random_runtimes[0]
    cross = runtime.select(runtime.encode(noise_features), np.array([0]))
    (whole,) = decode_encoded(runtime, cross, 1, options)
    for count in (1, 5):
        rest = replace(options, max_tokens=12 - count)
        (found,) = decode_encoded(runtime, cross, 1, rest, given=whole.tokens[:count])
        assert found.tokens == whole.tokens and found.logprobs == pytest.approx(whole.logprobs, abs=1e-4)
        assert found.text_logprob == pytest.approx(whole.text_logprob, abs=1e-4)
        assert found.avg_logprob == pytest.approx(np.mean(whole.logprobs[count:]), abs=1e-4)  # of its own choices


def test_temperatures_as_the_flags_ask():
    assert temperatures(0.0, True) == FALLBACK_TEMPERATURES and temperatures(0.0, False) == (0.0,)
    assert temperatures(0.7, True) == (0.7,)


@pytest.mark.parametrize("options", [Options("en"), Options("en", timestamps=True),
                                     Options("en", temperatures=(0.7,), max_tokens=9)])
def test_what_another_search_found_is_rated_alike(random_runtimes, noise_features, options):
    runtime = random_runtimes[0]
    expected = decode(runtime, noise_features[:1], options)[0]
    cross = runtime.encode(noise_features[:1])
    found = rate(runtime, cross, expected.prompt, expected.tokens, options)
    assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, rel=1e-4)
    assert (found.text, found.compression_ratio, found.temperature) == \
        (expected.text, expected.compression_ratio, expected.temperature)
    if options.max_tokens is None:  # else there was no end token to count
        assert found.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-3)


def test_thresholds():
    def result(**values):
        return Result([], "", **{"avg_logprob": -0.5, "no_speech_prob": 0.1, "temperature": 0.0,
                                 "compression_ratio": 1.0, "language": "en", "language_probability": None} | values)

    options = Options()
    assert not looks_wrong(result(), options)
    assert looks_wrong(result(avg_logprob=-1.1), options) and looks_wrong(result(compression_ratio=2.5), options)
    silent = result(avg_logprob=-1.1, no_speech_prob=0.7)
    assert is_silence(silent, options) and not looks_wrong(silent, options)
    assert not is_silence(result(no_speech_prob=0.9), options)  # the text is sure of itself
    assert not is_silence(silent, Options(no_speech_threshold=None))


def test_language_detection(rules):
    logits = np.zeros((rules.vocab_size, rules.vocab_size), np.float32)
    logits[rules.start, rules.languages["nl"]] = np.log(3)
    logits[rules.start, 5] = 50  # a text token is not a language, however likely
    runtime = Scripted(rules, logits)
    assert detect_language(runtime, windows(0.0), 1)[0] == pytest.approx({"en": 0.25, "nl": 0.75})
    found, given = decode(runtime, windows(0.0, 0.0), Options(max_tokens=2), languages=[None, "en"])
    assert (found.language, round(found.language_probability, 2)) == ("nl", 0.75)
    assert (given.language, given.language_probability) == ("en", None)
    assert found.prompt[1] == rules.languages["nl"] and given.prompt[1] == rules.languages["en"]


def test_no_speech_probability_is_read_at_the_start_token(rules):
    logits = np.zeros((rules.vocab_size, rules.vocab_size), np.float32)
    logits[rules.start, rules.no_speech] = np.log(rules.vocab_size - 1)
    for previous in ([], [3, 4]):
        result = decode(Scripted(rules, logits), windows(0.0), Options("en", max_tokens=2), previous=[previous])[0]
        assert result.no_speech_prob == pytest.approx(0.5, abs=1e-4)


def test_decoding_needs_neither_torch_nor_transformers():
    import subprocess
    import sys

    code = ("import sys; sys.modules['torch'] = sys.modules['transformers'] = None; "
            "import whisper_lab.decoding, whisper_lab.decoding, whisper_lab.transcribe, whisper_lab.alignment")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=__file__.rsplit("/tests/", 1)[0])
    assert done.returncode == 0, done.stderr
