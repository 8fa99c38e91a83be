"""Step 3: speech to text with Hugging Face Transformers, in the four steps of every Whisper program.

    python 02-whisper-huggingface.py                                    # speech.wav -> text
    python 02-whisper-huggingface.py media/digits.wav --model nano --explain
    python 02-whisper-huggingface.py lecture.mp3 --format srt > lecture.srt

    1. load and resample   any sound file -> samples, mono, 16 kHz                     [samples]
    2. features            samples -> log-mel spectrogram, a column every 10 ms        [mel bins, frames]
    3. generate            the encoder hears it once, the decoder writes token by token [tokens]
    4. decode              token ids -> text

A recording longer than the model's window (30 s for the published models) goes through steps 2 to 4 window by window;
the timestamps that the model writes say where the next window begins.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_lab import audio, checkpoints, confidence, console, flags, transcripts


@dataclass(frozen=True)
class Whisper:
    """A checkpoint on its device, with all that the four steps need."""

    checkpoint: checkpoints.Checkpoint
    model: Any  # WhisperForConditionalGeneration
    processor: Any  # WhisperProcessor: makes features from samples, and text from tokens
    runtime: Any  # TorchWhisper: the same model as the rest of the lab asks it, with its token rules
    pipe: Any = None  # transformers' pipeline around the model, with --api pipeline


# 1. Load and resample ------------------------------------------------------------------------------------------------

def load_and_resample(path: Path) -> audio.Audio:
    """Whatever the file holds becomes one row of float32 numbers in -1..1, 16 000 a second.

    Channels are averaged to mono, and the sampling rate is converted behind a low-pass filter, because 16 kHz is all
    that Whisper ever heard. For a WAV, in short:

        samples, rate = soundfile.read(path)
        samples = soxr.resample(samples.mean(axis=1), rate, 16000)
    """
    sound = audio.load(path)  # does it block by block, for every format and fault that a file may have
    audio.tell(path, sound)
    return sound


# 2, 3 and 4. One window ----------------------------------------------------------------------------------------------

def transcribe_window(whisper: Whisper, recording, window, words: bool) -> tuple:
    """Its segments go to the recording; returns the features and the decoding.Result, which --explain shows."""
    from whisper_lab.transcribe import add_words

    # 2. Features. A Fourier transform of 25 ms every 10 ms, its power summed in mel bands, the logarithm of that; a
    #    sound shorter than the window is padded with silence.                              [1, mel bins, frames]
    features = whisper.processor(window.samples, sampling_rate=audio.SAMPLE_RATE, return_tensors="pt").input_features

    # 3. Generate. The encoder turns the features into one vector every 20 ms, once;        [1, positions, d_model]
    heard = whisper.runtime.encode(features.numpy())
    #    the decoder looks at these vectors and writes the likeliest next token, again and again.         [tokens]
    result = generate(whisper, recording, window, features, heard)

    # 4. Decode. Each id stands for a piece of text (byte-level BPE); special tokens are left out. Tokens with
    #    timestamps are first cut at them, and the recording's cursor moves on to where the last whole segment ended.
    segments = recording.take(result)
    for segment in segments:
        segment.text = whisper.processor.decode(segment.tokens, skip_special_tokens=True).strip()
    if words and segments:
        add_words(whisper.runtime, heard, window, segments, result.language, recording.options.task,
                  recording.windows.next_start)
    return features[0].numpy(), result


def generate(whisper: Whisper, recording, window, features, heard):
    """Step 3 in full: one window's tokens as a decoding.Result.

    The decoder starts from the prompt <|startoftranscript|><|language|><|task|> and goes on until it writes
    <|endoftext|>. Where that text is doubtful, beams are tried, and where it repeats itself or is unlikely, higher
    temperatures; where all of them look wrong, the likeliest is taken.
    """
    from whisper_lab import decoding

    rules, options = whisper.runtime.rules, recording.options
    language, probability = recording.language, None
    if language is None:  # the decoder's first token after <|startoftranscript|> says which language it hears
        found = decoding.detect_language(whisper.runtime, heard, 1)[0]
        language, probability = max(found.items(), key=lambda pair: pair[1])
    prompt, attempts = rules.prompt(language, options.task, options.timestamps, recording.before), []
    for search in (searches := decoding.tries(options)):
        if attempts and decoding.is_enough(attempts[-1], search, rules):
            break
        settings = generate_settings(whisper, search, language, recording.before)
        if search is not searches[-1]:
            settings["stopping_criteria"] = whisper.runtime.leave_loops(search.compression_ratio_threshold)
        sequence = generate_once(whisper, window, features, heard, settings, options.seed)
        tokens = rules.answer(sequence)  # without the prompt and <|endoftext|>
        attempts.append(decoding.rate(whisper.runtime, heard, prompt, tokens, search))
    result = decoding.least_wrong(attempts, options)
    result.language, result.language_probability = language, probability
    return result


def generate_once(whisper: Whisper, window, features, heard, settings: dict, seed: int):
    """The whole sequence of tokens, prompt included, that transformers generates at one temperature."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    torch.manual_seed(seed)  # a window's text does not depend on the windows before it
    with torch.no_grad():  # nothing is trained here: keep no intermediate results for gradients
        if whisper.pipe is None:
            features = features.to(whisper.model.device, whisper.model.dtype)
            return whisper.model.generate(features, encoder_outputs=BaseModelOutput(heard), **settings)[0]
        # pipe(samples) makes these two calls, with features of its own, and decodes the tokens.
        inputs = next(whisper.pipe.preprocess(window.samples))
        return whisper.pipe.forward(inputs, **settings)["tokens"][0]


def generate_settings(whisper: Whisper, search, language: str | None, before: list[int]) -> dict:
    """The arguments of `model.generate` for one search of one window."""
    import torch

    rules, (temperature,) = whisper.runtime.rules, search.temperatures
    settings = {
        "return_timestamps": search.timestamps,
        "num_beams": search.beams,  # 1 is greedy search
        "max_length": rules.max_positions,  # without it, generate may stop after 20 tokens
        "force_unique_generate_call": True,  # one pass over the window: moving on is done by the recording
    }
    if rules.languages:  # an English-only checkpoint takes neither
        settings |= {"language": language, "task": search.task}
    if temperature > 0:  # draw from softmax(logits / temperature), all tokens taking part
        settings |= {"temperature": temperature, "top_k": 0}
    if before:
        settings["prompt_ids"] = torch.tensor([rules.previous, *before[-rules.most_previous:]],
                                              device=whisper.model.device)
    return settings


# Window after window -------------------------------------------------------------------------------------------------

def transcribe(whisper: Whisper, path: Path, options, prompt: list[int], condition: bool | None, words: bool) -> tuple:
    """One sound file to a Transcript; returns also what --explain shows of its first window, None of silence.

    For silence a Whisper invents words: windows that hold no speech are passed over, and it is never asked.
    """
    from whisper_lab.explain import FirstWindow
    from whisper_lab.transcribe import Recording

    sound, first = load_and_resample(path), None
    recording = Recording(sound.samples, whisper.runtime, options, prompt, condition)
    with console.sound_bar(path.name, sound.duration) as done:
        done(recording.moved())
        for window in recording.windows:
            features, result = transcribe_window(whisper, recording, window, words)
            first = first or FirstWindow(sound, window, features, result.prompt, result.tokens)
            done(recording.moved())
    return recording.transcript, first


# All together --------------------------------------------------------------------------------------------------------

def load_whisper(args) -> Whisper:
    """The checkpoint on the chosen device."""
    from whisper_lab.tokens import TokenRules

    checkpoint = checkpoints.resolve(args.model)
    TokenRules.from_folder(checkpoint.folder).prompt(args.language, args.task)  # what it cannot do is told at once
    transformers = checkpoints.import_transformers()
    import torch

    from whisper_lab.torch_whisper import TorchWhisper, choose_device, choose_dtype

    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    runtime = TorchWhisper.load(checkpoint, dtype=getattr(torch, dtype))
    model = runtime.model.to(device)
    runtime.complete_settings()
    processor, pipe = transformers.WhisperProcessor.from_pretrained(checkpoint.folder), None
    if args.api == "pipeline":
        pipe = transformers.pipeline("automatic-speech-recognition", model=model, tokenizer=processor.tokenizer,
                                     feature_extractor=processor.feature_extractor, dtype=model.dtype)
    return Whisper(checkpoint, model, processor, runtime, pipe)


def show_first_window(whisper: Whisper, clip: Path, first, folder: str) -> None:
    """--explain: shapes, guesses and a picture of the clip's first window."""
    from whisper_lab.explain import explain

    name = whisper.checkpoint.name
    title = f"{clip.name}, {name}"
    if whisper.checkpoint.random_weights:
        title += " (random weights: its text means nothing)"
    explain(first, whisper.runtime, Path(folder) / f"explain-{name}-{clip.stem}.png", title)


def arguments(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "audio", "model", "language", "task", "timestamps", "format", "output_dir",
                          "output_json", "threads", "beams", "temperature", "fallback", "condition_on_previous",
                          "prompt", "seed", "force", "quiet", "log_level")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="where to compute (default: %(default)s)")
    parser.add_argument("--reference", metavar="TEXT|FILE", help="what was said: prints word and character error rates")
    parser.add_argument("--explain", action="store_true", help="show shapes, guesses and a picture of the first window")
    more = flags.rare(parser)
    more.add_argument("--api", choices=["model", "pipeline"], default="model",
                      help="model.generate, or transformers' pipeline around it (default: %(default)s)")
    more.add_argument("--dtype", choices=["auto", "float32", "float16", "bfloat16"], default="auto",
                      help="precision of the computation (default: auto, float32 on cpu and float16 on cuda)")
    args = flags.parse(parser, argv)
    if args.explain and args.format != "text":
        parser.error("--explain prints tables: it goes with --format text only")
    transcripts.check(parser, args)
    return args


def main(argv: list[str] | None = None) -> int:
    """Every clip through the four steps."""
    args = arguments(argv)
    clips = audio.find(args.audio)
    references = transcripts.read_reference(args.reference, clips) if args.reference else {}
    if len(clips) == 1:  # what is no sound is told before the model is loaded
        audio.check(clips[0])
    whisper, windows = load_whisper(args), {}
    options = transcripts.options(args)
    prompt = whisper.runtime.rules.checked_prompt(whisper.runtime.tokenizer, args.prompt, args.language, args.task)
    confidence.tell_what_it_knows(whisper.checkpoint.name, args.language)

    def work(clip: Path):
        transcript, windows[clip] = transcribe(whisper, clip, options, prompt, args.condition_on_previous,
                                               args.timestamps == "word")
        return transcript

    def explain(clip: Path) -> None:
        if (first := windows.pop(clip)) and args.explain:
            show_first_window(whisper, clip, first, args.output_dir)

    results = transcripts.Results(
        clips, transcripts.output(args, title="Transcription:"),
        {name: getattr(whisper.checkpoint, name) for name in ("name", "revision", "random_weights")},
        transcripts.settings(args, "api", "dtype", "device"), references, args.threads)
    return results.run(work, explain)


if __name__ == "__main__":
    console.run(main)
