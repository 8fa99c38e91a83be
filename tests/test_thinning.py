"""The rest of a window, thinned: whole windows stay as they are, and a short one attends as if all its rest were there.
"""

import pytest
import torch

from whisper_lab import thinning

WHOLE, WIDTH = 500, 8
TABLE = torch.randn(WHOLE, WIDTH, generator=torch.Generator().manual_seed(0))


def thin(heard: int):
    states = torch.arange(heard, dtype=torch.float32)[None, :, None].expand(2, heard, WIDTH)
    return states, *thinning.thin(states, TABLE)


@pytest.mark.parametrize("heard", [1, 2, 3, 100, 101, 479, 480, 481, 499, 500])
def test_every_position_of_the_window_is_stood_for_once(heard):
    _, made, places, logarithms = thin(heard)
    counts = logarithms.exp()
    assert len(counts) == made.shape[1] == len(places) == heard + -(-(WHOLE - heard) // thinning.EACH)
    assert counts[:heard].eq(1).all() and counts.sum().item() == pytest.approx(WHOLE, rel=1e-5)


@pytest.mark.parametrize("heard", [499, 500])
def test_a_window_that_is_whole_has_all_its_positions(heard):
    _, made, places, logarithms = thin(heard)
    assert torch.equal(places, TABLE) and logarithms.eq(0).all() and made.shape[1] == WHOLE


def test_of_a_long_rest_more_are_stood_for_by_each(monkeypatch):
    monkeypatch.setattr(thinning, "MOST", 10)
    _, made, _, logarithms = thin(100)
    assert made.shape[1] == 110 and logarithms[100:].exp().eq(40).all()


def test_the_sound_stays_as_it_is_and_the_rest_is_the_last_state_but_one():
    states, made, places, _ = thin(100)
    assert torch.equal(made[:, :100], states) and torch.equal(places[:100], TABLE[:100])
    assert made[:, 100:].eq(98).all()


def test_the_rest_is_spread_over_what_is_left():
    _, _, places, _ = thin(100)
    rows = [next(i for i in range(WHOLE) if torch.equal(TABLE[i], place)) for place in places]
    steps = [after - before for before, after in zip(rows[100:], rows[101:], strict=False)]
    assert rows[:100] == list(range(100)) and set(steps) == {20} and rows[100] == 110 and rows[-1] == 490


def test_whispers_layer_hears_in_the_thinned_rest_what_it_hears_in_the_whole():
    """Where the rest has no positions of its own, thinning is exact: each stands for others that are equal to it."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

    torch.manual_seed(0)
    config = WhisperConfig(d_model=WIDTH, encoder_attention_heads=2, encoder_ffn_dim=16)
    config._attn_implementation = "eager"
    layer = WhisperEncoderLayer(config).eval()
    sound, silence = torch.randn(1, 100, WIDTH), torch.randn(1, 1, WIDTH)
    states = torch.cat([sound, silence.expand(1, 10, WIDTH)], dim=1)
    with torch.no_grad():
        short, _, logarithms = thinning.thin(states, TABLE)
        whole = torch.cat([states, silence.expand(1, WHOLE - 110, WIDTH)], dim=1)
        found, right = (each[0] if isinstance(each, tuple) else each
                        for each in (layer(short, logarithms[None, None, None]), layer(whole, None)))
        alone = layer(states, None)
        alone = alone[0] if isinstance(alone, tuple) else alone
    assert torch.allclose(found[:, :110], right[:, :110], atol=1e-5)
    assert not torch.allclose(alone, right[:, :110], atol=1e-2)  # without the rest it is another sound


def test_the_graph_hears_nearer_to_the_whole_window_than_without_the_rest(nano, monkeypatch):
    import numpy as np

    from whisper_lab import audio, checkpoints
    from whisper_lab.export.reference import MEDIA
    from whisper_lab.features import log_mel
    from whisper_lab.torch_whisper import TorchWhisper

    runtime = TorchWhisper.load(checkpoints.resolve(str(nano)))
    sound = audio.load(MEDIA / "time.wav").samples[:32_000]
    count = len(sound) // 320
    whole, short = (runtime.encode(log_mel(sound, runtime.spec, frames)[None]).numpy()[0, :count]
                    for frames in (None, 250))
    monkeypatch.setattr(thinning, "MOST", 0)  # no position stands for others
    cut = runtime.encode(log_mel(sound, runtime.spec, 250)[None]).numpy()[0, :count]
    assert np.square(short - whole).mean() < 0.5 * np.square(cut - whole).mean()
