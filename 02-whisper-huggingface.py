"""Step 3: speech to text with Hugging Face Transformers, in the four steps of every Whisper program.

    python 02-whisper-huggingface.py                                    # speech.wav -> text
    python 02-whisper-huggingface.py --model nano --audio media --language en --timestamps segment
    python 02-whisper-huggingface.py --model nano --audio media/digits.wav --explain
    python 02-whisper-huggingface.py --audio lecture.mp3 --format srt > lecture.srt

    1. load and resample   any sound file -> samples, mono, 16 kHz                     [samples]
    2. features            samples -> log-mel spectrogram, a column every 10 ms        [mel bins, frames]
    3. generate            the encoder hears it once, the decoder writes token by token [tokens]
    4. decode              token ids -> text

A recording longer than the model's window (30 s for the published models) goes through steps 2 to 4 window by window;
the timestamps that the model writes say where the next window begins.
"""

import time
from pathlib import Path

from whisper_lab import audio, checkpoints, confidence, console, transcripts
from whisper_lab.console import LabError


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    clips = audio.find(args.audio)
    references = transcripts.read_reference(args.reference, clips) if args.reference else {}
    lab = load_model(args)
    confidence.tell_what_it_knows(lab.checkpoint.name, args.language)
    results = transcripts.Results(args, lab.checkpoint, references, several=len(clips) > 1)
    failures = 0
    for clip in console.progress(clips, description="transcribing", unit="clip"):
        try:
            started = time.perf_counter()
            transcript, trace = transcribe(lab, clip, args)
            results.add(clip, transcript, time.perf_counter() - started)
            if args.explain and trace:
                explain_window(lab, clip, trace, args.output_dir)
        except LabError as error:
            if len(clips) == 1:
                raise
            failures += 1  # one bad file does not take the others with it
            console.error(error)
    results.write()
    return 1 if failures else 0


def transcribe(lab, path: Path, args):
    """The lesson: one sound file to a Transcript. Also returns what --explain needs to show its first window."""
    from whisper_lab.decoding import Options, is_silence
    from whisper_lab.explain import Trace
    from whisper_lab.transcribe import Transcript, Windows, add_words, to_continue

    # 1. Load and resample. Whatever the file holds becomes one row of float32 numbers in -1..1, 16 000 a second:
    #    channels are averaged to mono, and the sampling rate is converted behind a low-pass filter, because 16 kHz is
    #    all that Whisper ever heard. For a WAV, in short:
    #        samples, rate = soundfile.read(path); samples = soxr.resample(samples.mean(axis=1), rate, 16000)
    sound = audio.load(path)  # does it block by block, for every format and fault a file may have
    console.note("loaded", f"{path.name}, {sound.duration:.2f} s", "; ".join([sound.source_format, *sound.notes]))
    level = audio.level(sound.samples)
    if level.advice:
        console.warn(f"{path.name}: {level.advice}")

    language = lab.rules.wanted_language(args.language) if lab.rules.languages else "en"  # None: to be detected
    transcript, trace = Transcript(language=language, duration=sound.duration), None
    # A recording longer than the window needs timestamps, because they tell where the next window begins.
    timestamps = args.timestamps != "none" or sound.duration > lab.spec.window_s
    # What was said so far is given to the next window, which then goes on in the same words and spelling.
    condition, said = lab.rules.condition_on_previous and bool(lab.rules.previous), []
    condition = condition if args.condition_on_previous is None else args.condition_on_previous
    # For silence a Whisper invents words: windows that hold no speech are passed over, and never asked.
    windows = Windows(sound.samples, lab.spec.n_samples, lab.spec.sampling_rate, lab.rules, lab.tokenizer)
    for window in console.progress(windows, description=path.name, unit="window"):
        # 2. Features. A Fourier transform of 25 ms every 10 ms, its power summed in mel bands, the logarithm of that;
        #    a sound shorter than the window is padded with silence.                      [1, mel bins, frames]
        features = lab.processor(window.samples, sampling_rate=audio.SAMPLE_RATE, return_tensors="pt").input_features
        features = features.to(lab.model.device, lab.model.dtype)
        language, probability = transcript.language, transcript.language_probability
        if language is None:  # until a window is kept, each is asked for its own
            language, probability = detect_language(lab, features)

        # 3. Generate. The encoder turns the features into one vector every 20 ms; the decoder starts from the prompt
        #    <|startoftranscript|><|language|><|task|> and writes the likeliest next token, again and again, until
        #    that is <|endoftext|>.                                                                       [tokens]
        #    Where that text repeats itself or is unlikely, the next temperature is tried.
        result = generate(lab, args, window, features, language, timestamps, lab.prompt + said)
        mel = features[0].float().cpu().numpy()
        trace = trace or Trace(sound, window, mel, result.prompt, result.tokens)
        if is_silence(result, Options()):  # likely no speech, and unlikely text
            windows.skip()
            continue

        # 4. Decode. Each id stands for a piece of text (byte-level BPE); special tokens are left out. Tokens with
        #    timestamps are first cut at them, and the cursor moves on to where the last whole segment ended.
        segments = windows.advance(result.tokens)
        for segment in segments:
            segment.text = lab.processor.decode(segment.tokens, skip_special_tokens=True).strip()
            segment.text_logprob, segment.compression_ratio = result.text_logprob, result.compression_ratio
        transcript.segments += segments
        said = to_continue(said, segments, result, Options()) if condition else []
        if segments and transcript.language is None:
            transcript.language, transcript.language_probability = language, probability
            console.note("language", language, f"detected in the first window with speech, probability "
                         f"{probability:.3f}; --language sets it")
        if args.timestamps == "word" and segments:
            add_words(lab, lab.encode(mel[None]), window, segments, language, args.task, windows.next_start)
    return transcript, trace


def generate(lab, args, window, features, language: str | None, timestamps: bool, before: list[int]):
    """One window's tokens, as a decoding.Result: those of the first temperature whose text does not look wrong, or
    the likeliest of all."""
    import torch

    from whisper_lab import decoding

    prompt = lab.rules.prompt(language, args.task, timestamps, before)
    cross, attempts = None, []
    for temperature in decoding.temperatures(args.temperature, args.fallback):
        settings = generate_settings(lab, args, language, timestamps, temperature, before)
        torch.manual_seed(args.seed)  # a window's text does not depend on the windows before it
        with torch.no_grad():  # nothing is trained here: keep no intermediate results for gradients
            if args.api == "model":
                sequence = lab.model.generate(features, **settings)
            else:  # pipe(samples) makes these two calls, with features of its own, and decodes the tokens
                inputs = next(lab.pipe.preprocess(window.samples))
                sequence = lab.pipe.forward(inputs, **settings)["tokens"]
        tokens = lab.rules.answer(sequence[0])  # without the prompt and <|endoftext|>
        cross = lab.encode(features.float().cpu().numpy()) if cross is None else cross
        attempts.append(decoding.rate(lab, cross, prompt, tokens, temperature, timestamps))
        if not decoding.looks_wrong(attempts[-1], decoding.Options()):
            break
    return decoding.least_wrong(attempts, decoding.Options())


def detect_language(lab, features) -> tuple[str, float]:
    """The decoder's first token after <|startoftranscript|> is the language: its code and probability."""
    import torch

    start = torch.tensor([[lab.rules.start]], device=features.device)
    with torch.no_grad():
        logits = lab.model(features, decoder_input_ids=start).logits[0, -1]  # [vocab]
    codes, ids = list(lab.rules.languages), list(lab.rules.languages.values())
    probabilities = logits[ids].float().softmax(dim=-1)  # among the languages only
    best = int(probabilities.argmax())
    return codes[best], float(probabilities[best])


def generate_settings(lab, args, language: str | None, timestamps: bool, temperature: float, before: list[int]) -> dict:
    """The arguments of `model.generate` for one window at one temperature."""
    import torch

    settings = {
        "return_timestamps": timestamps,
        "num_beams": args.beams if temperature == 0 else 1,  # 1 is greedy search
        "max_length": lab.rules.max_positions,  # without it, generate may stop after 20 tokens
        "force_unique_generate_call": True,  # one pass over the window: moving on is done here, by windows.advance
    }
    if lab.rules.languages:  # an English-only checkpoint takes neither
        settings |= {"language": language, "task": args.task}
    if temperature > 0:  # draw from softmax(logits / temperature), all tokens taking part
        settings |= {"temperature": temperature, "top_k": 0}
    if before:
        last = before[-lab.rules.most_previous:]
        settings["prompt_ids"] = torch.tensor([lab.rules.previous, *last], device=lab.model.device)
    return settings


def load_model(args):
    """The checkpoint on the chosen device, with its processor, tokenizer and token rules."""
    checkpoint = checkpoints.resolve(args.model)
    transformers = checkpoints.import_transformers()
    import torch

    from whisper_lab.torch_whisper import TorchWhisper, choose_device

    if args.threads:
        torch.set_num_threads(args.threads)
    device, dtype = choose_device(args.device), args.dtype
    if dtype == "auto":  # half precision pays on a GPU; processors compute it slowly or not at all
        dtype = "float16" if device == "cuda" else "float32"
    console.note("precision", dtype, "--dtype asks for it" if args.dtype != "auto" else f"the usual choice on {device}")
    model = checkpoints.load_model(checkpoint, dtype=getattr(torch, dtype)).to(device)
    lab = TorchWhisper(model, checkpoint.folder)
    lab.checkpoint = checkpoint
    lab.complete_settings()
    lab.keep_states()
    lab.processor = transformers.WhisperProcessor.from_pretrained(checkpoint.folder)
    lab.prompt = lab.rules.prompt_tokens(lab.tokenizer, args.prompt or "")
    lab.rules.prompt(args.language, args.task, False, lab.prompt)  # says now what the checkpoint does not know
    if args.api == "pipeline":
        lab.pipe = transformers.pipeline("automatic-speech-recognition", model=model, tokenizer=lab.processor.tokenizer,
                                         feature_extractor=lab.processor.feature_extractor, dtype=model.dtype)
    return lab


def explain_window(lab, clip: Path, trace, folder: str) -> None:
    """--explain: shapes, guesses and a picture of the clip's first window."""
    from whisper_lab.explain import explain

    name = lab.checkpoint.name
    title = f"{clip.name}, {name}"
    if lab.checkpoint.random_weights:
        title += " (random weights: its text means nothing)"
    explain(trace, lab, Path(folder) / f"explain-{name}-{clip.stem}.png", title)


def parse(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    parser = console.parser(__doc__, "model", "audio", "language")
    parser.add_argument("--task", choices=["transcribe", "translate"], default="transcribe",
                        help="translate writes English whatever is spoken (default: %(default)s)")
    parser.add_argument("--api", choices=["model", "pipeline"], default="model",
                        help="model.generate, or transformers' pipeline around it (default: %(default)s)")
    parser.add_argument("--beams", type=int, default=1, metavar="N",
                        help="width of the beam search (default: 1, greedy)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T",
                        help="above 0: sample instead of taking the likeliest token (default: %(default)s)")
    console.add_flags(parser, "fallback", "condition_on_previous")
    parser.add_argument("--timestamps", choices=["none", "segment", "word"], default="none",
                        help="show when each segment or word was said (default: %(default)s)")
    parser.add_argument("--prompt", metavar="TEXT",
                        help="text put before every window, such as names to expect (default: none)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: %(default)s)")
    parser.add_argument("--dtype", choices=["auto", "float32", "float16", "bfloat16"], default="auto",
                        help="precision of the computation (default: auto, float32 on cpu and float16 on cuda)")
    parser.add_argument("--format", choices=["text", "json", "srt", "vtt"], default="text",
                        help="of the output; srt and vtt of several clips go to --output-dir (default: %(default)s)")
    parser.add_argument("--reference", metavar="TEXT|FILE", help="what was said: prints word and character error rates")
    parser.add_argument("--explain", action="store_true", help="show shapes, guesses and a picture of the first window")
    console.add_flags(parser, "threads", "seed", "output_dir", "output_json", "quiet", "log_level")
    args = console.parse(parser, argv)
    if args.beams < 1 or args.temperature < 0:
        parser.error("--beams starts at 1, --temperature at 0")
    if args.beams > 1 and args.temperature > 0:
        parser.error("choose --beams (search) or --temperature (sampling), not both")
    if args.explain and args.format != "text":
        parser.error("--explain prints tables: it goes with --format text only")
    if args.format in ("srt", "vtt") and args.timestamps == "none":
        args.timestamps = "segment"
        console.note("timestamps", "segment", f"--format {args.format} needs them")
    return args


if __name__ == "__main__":
    console.run(main)
