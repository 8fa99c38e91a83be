"""whisper-nano before training: tokenizer, configuration, random weights, all in Hugging Face layout.

Every number of the architecture differs from the published checkpoints on purpose (window, mel bins, heads, head
size, vocabulary): code with a hidden 3000, 64 or 51865 fails on it.
"""

import random
from pathlib import Path

from whisper_lab.checkpoints import import_transformers
from whisper_lab.spoken import grammar

WINDOW_S = 10
N_MELS = 64
MERGES = 300
LANGUAGES = ("en", "nl")
MAX_TARGET_POSITIONS = 128
TIMESTAMPS = [f"<|{i * 0.02:.2f}|>" for i in range(WINDOW_S * 50 + 1)]  # one for every encoder position, and the end
# Whisper's special tokens in Whisper's order; only the list of languages is shorter.
SPECIAL = [
    "<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES), "<|translate|>", "<|transcribe|>",
    "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip


def make_tokenizer(folder: Path, seed: int = 0):
    """Byte-level BPE over sentences of the grammar, plus Whisper's special and timestamp tokens.

    Returns the WhisperTokenizer that was written to `folder`.
    """
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

    draw = random.Random(seed)
    text = [f" {grammar.sentence(draw, language).text}" for language in LANGUAGES for _ in range(20_000)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # all 256 bytes: nothing is ever unknown
    bpe.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=256 + MERGES, initial_alphabet=alphabet, show_progress=False)
    )
    folder.mkdir(parents=True, exist_ok=True)
    bpe.model.save(str(folder))
    tokenizer = import_transformers().WhisperTokenizer.from_pretrained(
        str(folder), errors="replace", unk_token="<|endoftext|>", bos_token="<|endoftext|>", eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )  # fmt: skip
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    # As in the published tokenizers timestamps are not special tokens: decode() leaves them out by their number.
    tokenizer.add_tokens([AddedToken(stamp, normalized=False, special=False) for stamp in TIMESTAMPS])
    tokenizer.save_pretrained(str(folder))
    # Read again, it knows its tokens when it writes down what stands before a text (start, no timestamps).
    tokenizer = import_transformers().WhisperTokenizer.from_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def generation_config(tokenizer) -> dict:
    """What `generate` and every other runtime must know about the tokens."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "lang_to_id": {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        "is_multilingual": True,
        "max_initial_timestamp_index": 50 * WINDOW_S,  # speech may begin anywhere in the window
        "max_length": MAX_TARGET_POSITIONS,
        "return_timestamps": False,
        "condition_on_prev_tokens": False,  # its clips were told apart: text before a window leads it astray
        # The published checkpoints forbid an empty transcript here; nano learnt to say nothing about silence.
        "begin_suppress_tokens": [tokenizer.convert_tokens_to_ids("Ġ")],
        "suppress_tokens": sorted(ids[t] for t in SPECIAL[1:-1]),
    }


def make_config(tokenizer):
    """WhisperConfig of nano: 3.3 million parameters."""
    eos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return import_transformers().WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=N_MELS, d_model=192,
        encoder_layers=4, encoder_attention_heads=4, encoder_ffn_dim=768,
        decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=768,
        max_source_positions=50 * WINDOW_S, max_target_positions=MAX_TARGET_POSITIONS, dropout=0.0,
        init_std=0.06,  # about 1 / sqrt(d_model): with Whisper's 0.02 a model this narrow takes long to start
        bos_token_id=eos, eos_token_id=eos, pad_token_id=eos,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip


def extractor():
    """WhisperFeatureExtractor of nano."""
    return import_transformers().WhisperFeatureExtractor(feature_size=N_MELS, chunk_length=WINDOW_S)


def _plain_attention(module, query, key, value, attention_mask, **_):
    """Attention written out [clips, heads, positions, head_dim]: in bfloat16 on a processor three times as fast as the
    fused kernel. WhisperAttention has scaled the query already."""
    weights = query @ key.transpose(-1, -2)
    if attention_mask is not None:
        weights = weights + attention_mask
    return (weights.softmax(-1) @ value).transpose(1, 2), None


def make(folder: Path, seed: int = 0):
    """Write a whole untrained checkpoint to `folder`; returns (model, tokenizer)."""
    import torch

    transformers = import_transformers()
    tokenizer = make_tokenizer(folder)
    transformers.WhisperProcessor(extractor(), tokenizer).save_pretrained(str(folder))
    extractor().save_pretrained(str(folder))  # preprocessor_config.json, which the published checkpoints have too
    torch.manual_seed(seed)
    transformers.AttentionInterface.register("plain", _plain_attention)
    # Without a mask of its own a new kind of attention gets none, and the decoder would see the future.
    transformers.AttentionMaskInterface.register("plain", transformers.masking_utils.eager_mask)
    config = make_config(tokenizer)
    config._attn_implementation = "plain"
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(**generation_config(tokenizer))
    model.save_pretrained(str(folder))
    return model, tokenizer
