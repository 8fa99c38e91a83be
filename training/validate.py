"""Word error rate during training, on plans drawn from held-out voices, sentences and speakers.

This is the quick look while training goes on; `training.evaluate` measures the finished checkpoint the way
a user runs it.
"""

import random

import torch

from training.examples import Planner, collate

SETS = {  # name -> kind of clip, share of Dutch, augmented
    "sentences en": ("sentences", 0.0, False),
    "sentences en degraded": ("sentences", 0.0, True),
    "sentences nl": ("sentences", 1.0, False),
    "human digits": ("human digits", 0.0, False),
    "human digits degraded": ("human digits", 0.0, True),
    "synthetic digits": ("synthetic digits", 0.1, False),
    "nothing": ("nothing", 0.0, True),
}


@torch.no_grad()
def validate(model, tokenizer, utterances, audio, augmenter, seed: int, clips: int) -> dict[str, object]:
    """WER per set (words said into silence for "nothing"), greedy, averaged weights, with a few examples."""
    window = model.config.max_source_positions * 320
    planner = Planner(utterances, tokenizer, window, model.config.max_target_positions, held_out=True)
    report = {}
    for name, (kind, dutch, augment) in SETS.items():
        if kind == "human digits" and not planner.human:
            continue
        rng = random.Random(f"validate/{seed}")
        plans = [planner.draw(rng, kind, dutch) for _ in range(clips)]
        batch = collate(plans, audio, tokenizer.eos_token_id, window)
        batch = {k: torch.from_numpy(v).to(augmenter.device) for k, v in batch.items()}
        augmenter.generator.manual_seed(seed)
        languages = [p.segments[0].language if p.segments else "en" for p in plans]
        said = transcribe(model, tokenizer, augmenter.render(batch, augment), languages)
        truth = [" ".join(s.text for s in p.segments if s.end <= window) for p in plans]
        report[name] = _score(truth, said)
    return report


def transcribe(model, tokenizer, features: torch.Tensor, languages: list[str]) -> list[str]:
    """Greedy text of each clip, without timestamps; recomputes the prefix, which is fine for so few layers."""
    device = features.device
    encoded = model.model.encoder(features)
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in tokenizer.all_special_tokens}
    start = [[ids["<|startoftranscript|>"], ids[f"<|{code}|>"], ids["<|transcribe|>"], ids["<|notimestamps|>"]]
             for code in languages]  # fmt: skip
    tokens = torch.tensor(start, device=device)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=device)
    while tokens.shape[1] < model.config.max_target_positions and not ended.all():
        hidden = model.model.decoder(input_ids=tokens, encoder_hidden_states=encoded.last_hidden_state, use_cache=False)
        logits = model.proj_out(hidden.last_hidden_state[:, -1])
        logits[:, ids["<|endoftext|>"] + 1 :] = -torch.inf  # text or the end, no special tokens
        chosen = torch.where(ended, ids["<|endoftext|>"], logits.argmax(-1))
        ended |= chosen == ids["<|endoftext|>"]
        tokens = torch.cat([tokens, chosen[:, None]], 1)
    return [text.strip() for text in tokenizer.batch_decode(tokens[:, 4:].tolist(), skip_special_tokens=True)]


def _score(truth: list[str], said: list[str]) -> dict[str, object]:
    import jiwer

    if not any(truth):
        return {"false_words": sum(len(s.split()) for s in said), "clips": len(said)}
    kept = [(t, s) for t, s in zip(truth, said, strict=True) if t]
    wrong = [f"{t} -> {s}" for t, s in kept if t != s]
    wer = jiwer.wer([t for t, _ in kept], [s for _, s in kept])
    return {"wer": round(wer, 4), "clips": len(kept), "examples": wrong[:4]}
