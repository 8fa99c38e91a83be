"""benchmarks/throughput.py: its recordings, a measurement on whisper-nano in a process of its own, table, picture."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import audio, machine

MEDIA = Path(__file__).resolve().parent.parent / "media"


@pytest.fixture(scope="module")
def throughput():
    return module("throughput")


def document(rows: list[dict]) -> dict:
    return {"machine": machine.card(2), "load_before": 0.1, "model": "whisper-base", "corpus": "media",
            "settings": {"rounds": 2, "default_batch_size": {"int8": 4, "int8 optimized": 4}}, "rows": rows}


def rows_of(throughput, seconds) -> list[dict]:
    """Two rounds; seconds: (graphs, batch size, threads, minutes) -> s."""
    cells = [(graphs, size, threads, minutes) for graphs in throughput.GRAPHS for size in (1, 4) for threads in (1, 2)
             for minutes in (1, 12)]
    return [{"graphs": cell[0], "batch_size": cell[1], "threads": cell[2], "minutes": cell[3],
             "seconds": scale * seconds(*cell), "processor_s": 1.0, "characters": 900, "sound_bytes": 1e6,
             "peak_rss_bytes": 3e8 + 1e7 * cell[3]} for scale in (0.5, 1.5) for cell in cells]


def test_a_recording_has_the_length_and_is_the_same_again(throughput, monkeypatch, tmp_path):
    monkeypatch.setattr(throughput.prepare, "WORK", tmp_path)
    path = throughput.write_recording(str(MEDIA), 0.5, 0)
    samples = audio.load(path).samples
    assert len(samples) == 30 * audio.SAMPLE_RATE and np.abs(samples).max() > 0.1
    assert np.array_equal(samples, audio.load(throughput.write_recording(str(MEDIA), 0.5, 0)).samples)
    assert not np.array_equal(samples, audio.load(throughput.write_recording(str(MEDIA), 0.5, 1)).samples)


def test_one_measurement_in_a_process_of_its_own(throughput, nano_export, tmp_path):
    clip = tmp_path / "clip.wav"
    audio.write_wav(clip, audio.load(MEDIA / "long.flac").samples)
    row = throughput.in_a_process({"graphs": "int8", "batch_size": 2, "threads": 1, "minutes": 0.6, "wav": str(clip),
                                   "folder": str(nano_export / "graphs"), "name": "whisper-nano"})
    assert row["characters"] > 200 and 0 < row["seconds"] < 100 and row["peak_rss_bytes"] > row["sound_bytes"] > 2e6
    assert (row["graphs"], row["minutes"]) == ("int8", 0.6)


def test_table_and_picture_show_every_cell(throughput, tmp_path):
    made = throughput.medians(rows_of(throughput, lambda graphs, size, threads, minutes: minutes * 2 / size / threads))
    assert len(made) == 16
    text = throughput.table(document(made))
    assert "| int8 | 2 | 4 | 240 | 240 | 310 | 420 |" in text and "| int8 optimized | 1 | 1 | 30 | 30 |" in text
    path = throughput.picture(document(made), tmp_path / "throughput.png")
    assert path.stat().st_size > 20_000
