"""The next labs: the end-to-end architecture. An 8-billion-parameter system as a blueprint, and a miniature that works.

    python 07-explore-architecture.py                                     # configuration, modules, parameters, shapes
    python 07-explore-architecture.py --swap-encoder openai/whisper-base --swap-decoder Qwen/Qwen2-0.5B-Instruct
    python 07-explore-architecture.py media/kitchen.wav --trace           # its journey: reports/trace-*.html

    1. configuration   which models listen and write, and how many frames are stacked between them
    2. modules         the three components: audio_encoder, audio_projector, text_decoder
    3. parameters      how many there are, and which of them are trained
    4. shapes          a clip at every stage, from samples to scores
    5. a swap          another listener or writer: what changes
    6. the miniature   the same three components, small and trained, at work on a clip

Sound -> [frozen Whisper encoder] -> [projector, trained] -> [frozen language model] -> text. The blueprint has no
weights: its shapes are real, nothing is downloaded. The miniature has (training/train_projector.py).
"""

from pathlib import Path

from whisper_lab import console, flags
from whisper_lab.console import LabError

LINE = "=" * 60
SAMPLE_RATE = 16000  # Hz
MINIATURE = Path(__file__).resolve().parent / "speech_llm_model_dir" / "nano-asr"
# What --preset names: the pair of the class, smaller published pairs of the same kind, and the miniature.
PRESETS = {
    "class": ("openai/whisper-large-v3", "Qwen/Qwen2-7B-Instruct"),
    "medium": ("openai/whisper-medium", "Qwen/Qwen2-1.5B-Instruct"),
    "small": ("openai/whisper-base", "Qwen/Qwen2-0.5B-Instruct"),
    "nano": None,
}

# 1. Configuration -----------------------------------------------------------------------------------------------------

def show_configuration(config) -> None:
    """The architectural blueprint: who listens, who writes, and how many frames the translator stacks."""
    console.result(f"{LINE}\nPART 1: The ASRConfig - Our Architectural Blueprint\n{LINE}")
    console.result(f"1. Audio Encoder ID  -> {console.plain(config.audio_model_id, one_line=True)}")
    console.result("   - This is our 'Listener'. It defines which pre-trained audio model to use.")
    console.result(f"   - Encoder output dimension: {config.encoder_dim}\n")
    console.result(f"2. Text Decoder ID   -> {console.plain(config.text_model_id, one_line=True)}")
    console.result("   - This is our 'Writer'. It defines which pre-trained language model to use.")
    console.result(f"   - LLM input dimension: {config.llm_dim}\n")
    console.result("3. Projector Config")
    console.result(f"   - Downsample Rate: {config.audio_downsample_rate}x")
    console.result("   - This defines how many audio frames are stacked by the 'Translator'.\n")


# 2. Modules -----------------------------------------------------------------------------------------------------------

def show_modules(model) -> None:
    """The three components by the names of their classes; the projector with all that is in it."""
    import textwrap

    console.result(f"{LINE}\nPART 2: The ASRModel - The Full Pipeline\n{LINE}")
    console.result("ASRModel class contains the three main components:\n")
    console.result(f"1. model.audio_encoder:\n   {model.audio_encoder.__class__.__name__}\n")
    console.result(f"2. model.audio_projector:\n{textwrap.indent(str(model.audio_projector), '   ')}\n")
    console.result(f"3. model.text_decoder:\n   {model.text_decoder.__class__.__name__}\n")
    console.result("This single `ASRModel` object orchestrates the entire pipeline from audio to text.")


# 3. Parameters --------------------------------------------------------------------------------------------------------

def count_parameters(model) -> dict[str, dict]:
    """For each component its parameters: all, and those that training changes."""
    parts = {"audio_encoder": "Listener", "audio_projector": "Translator", "text_decoder": "Writer"}
    counts = {}
    for name, role in parts.items():
        parameters = list(getattr(model, name).parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        counts[name] = {"role": role, "parameters": sum(p.numel() for p in parameters), "trained": trained}
    return counts


# 4. Shapes ------------------------------------------------------------------------------------------------------------

def follow_shapes(model, seconds: float) -> list[dict]:
    """Send a clip of `seconds` through the model stage by stage and write down every shape.

    In a blueprint the tensors have no numbers in them, but PyTorch computes their shapes all the same.
    """
    import torch

    from whisper_lab.speech_llm import parts

    config, device = model.config.audio_config, model.text_decoder.device
    window = parts.window_frames(config)  # mel frames; Whisper's encoder wants all of them, silence after the clip
    samples = round(seconds * SAMPLE_RATE)
    frames = samples // 160  # a frame every 10 ms
    if not 0 < frames <= window:
        raise LabError(f"{seconds:g} s do not fit the encoder's window of {window / 100:g} s", "choose fewer --seconds")
    heard = parts.encoder_positions(frames)
    with torch.no_grad():
        features = torch.zeros(1, config.num_mel_bins, window, device=device)
        states = model.audio_encoder.encoder(features).last_hidden_state  # [1, window / 2, encoder_dim]
        spoken = states[:, :heard]  # positions behind the end of the clip heard only padding
        vectors = model.audio_projector(spoken)  # [1, vectors, llm_dim]
        logits = model.text_decoder(inputs_embeds=vectors).logits
    every = 1000 * seconds / vectors.shape[1]
    return [
        {"stage": "digitized sound", "shape": [samples], "what": f"{seconds:g} s at 16,000 samples a second"},
        {"stage": "log-mel spectrogram", "shape": [config.num_mel_bins, frames],
         "what": f"a frame every 10 ms, {config.num_mel_bins} mel bins; padded to {window} frames"},
        {"stage": "encoder output", "shape": list(states.shape[1:]), "what": "the whole window, padding included"},
        {"stage": "of it, heard", "shape": list(spoken.shape[1:]), "what": "a vector every 20 ms of the clip"},
        {"stage": "projector output", "shape": list(vectors.shape[1:]),
         "what": f"a vector every {every:.0f} ms, as wide as a token embedding"},
        {"stage": "decoder output", "shape": list(logits.shape[1:]), "what": "a score for every token it knows"},
    ]


# 5. A swap ------------------------------------------------------------------------------------------------------------

def facts(config) -> dict[str, object]:
    """What of a blueprint depends on its parts."""
    from whisper_lab.speech_llm import ASRModel

    model = ASRModel.blueprint(config)
    counts = count_parameters(model)
    first = next(m for m in model.audio_projector.modules() if hasattr(m, "in_features"))
    return {"encoder": config.audio_model_id, "decoder": config.text_model_id,
            "mel bins": config.audio_config.num_mel_bins,
            "encoder dimension": config.encoder_dim, "LLM dimension": config.llm_dim,
            "stacked frames, projector's input": first.in_features, "vocabulary": config.text_config.vocab_size,
            "projector parameters (trained)": counts["audio_projector"]["parameters"],
            "encoder parameters (frozen)": counts["audio_encoder"]["parameters"],
            "decoder parameters (frozen)": counts["text_decoder"]["parameters"]}


def changes(before, after) -> dict[str, list]:
    """Only what a swap changes, [before, after]: the projector is rebuilt to fit, nothing else needs to know."""
    old, new = facts(before), facts(after)
    return {name: [old[name], new[name]] for name in old if old[name] != new[name]}


# 6. The miniature -----------------------------------------------------------------------------------------------------

def transcribe(model, processor, samples) -> str:
    """Sound to text, the three components one after the other."""
    batch = processor(samples)  # log-mel features, and the prompt's tokens with one <audio> among them
    states, positions = model.encode(batch["input_features"], batch["audio_attention_mask"])  # the Listener
    vectors, counts = model.project(states, positions)  # the Translator
    inputs = model.insert(batch["input_ids"], batch["attention_mask"], vectors, counts)  # in the place of <audio>
    ids = model.text_decoder.generate(  # the Writer: one token after the other, until it writes the end token
        **inputs, max_new_tokens=model.config.max_transcript_tokens, num_beams=model.config.transcript_beams,
        do_sample=False, eos_token_id=model.config.end_token_id, pad_token_id=model.config.end_token_id)
    return processor.batch_decode(ids)[0]


def run_miniature(clips: list[Path], folder: Path, untrained: bool, seed: int, trace_to: Path | None) -> list[dict]:
    """Transcribe every clip; with trace_to, a folder, draw each one's journey there."""
    from whisper_lab import audio
    from whisper_lab.speech_llm import journey, miniature

    model, processor = miniature.load(folder, untrained=untrained, seed=seed)
    rows = []
    for path in clips:
        sound = audio.load(path)
        text = transcribe(model, processor, sound.samples)
        console.result(console.plain(f"{path.name}: {text}", one_line=True))
        rows.append(miniature.judged(path.name, text))
        if trace_to:
            rows[-1]["files"] = journey.write(model, processor, sound.samples, path, trace_to)
    return rows


# All together ---------------------------------------------------------------------------------------------------------

def explore(args) -> dict:
    """Steps 1 to 5."""
    from whisper_lab import machine
    from whisper_lab.speech_llm import ASRModel, blueprints, tables

    swapped = args.swap_encoder, args.swap_decoder
    before, config = blueprints.find(PRESETS[args.preset or "class"], args.speech_llm, *swapped,
                                     audio_downsample_rate=args.downsample_rate, projector_type=args.projector)
    model = ASRModel.blueprint(config)
    show_configuration(config)
    show_modules(model)
    counts, stages = count_parameters(model), follow_shapes(model, args.seconds)
    tables.show_parameters(counts)
    tables.show_shapes(stages, args.seconds)
    changed = {}
    if before is not config:
        changed = changes(before, config)
        tables.show_changes(changed)
    return {"audio_model_id": config.audio_model_id, "text_model_id": config.text_model_id,
            "encoder_dim": config.encoder_dim, "llm_dim": config.llm_dim, "projector_type": config.projector_type,
            "audio_downsample_rate": config.audio_downsample_rate, "parameters": counts, "shapes": stages,
            "changed_by_swap": changed, "machine": machine.card(args.threads)}


def arguments(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "threads", "seed", "output_dir", "output_json", "quiet", "log_level")
    parser.add_argument("audio", nargs="*", default=[], metavar="CLIP",
                        help="sound files or folders that the miniature writes down")
    flags.renamed(parser, "--transcribe", "CLIP without a flag", nargs="+", dest="former_audio")
    parser.add_argument("--trace", nargs="?", const=True, metavar="CLIP",
                        help="draw the journey of the clips through the miniature")
    parser.add_argument("--untrained", action="store_true", help="the control: the miniature before any training")
    parser.add_argument("--preset", choices=list(PRESETS),
                        help="pair of encoder and decoder; nano is the trained miniature (default: class)")
    parser.add_argument("--swap-encoder", metavar="ID", help="another Whisper: Hub id or folder")
    parser.add_argument("--swap-decoder", metavar="ID", help="another language model: Hub id or folder")
    parser.add_argument("--projector", metavar="NAME", choices=["linear", "mlp", "swiglu", "moe", "qformer"],
                        help="%(choices)s (default: linear, or the miniature's)")
    more = flags.rare(parser)
    more.add_argument("--downsample-rate", type=flags.whole(1), metavar="N", help="frames to a vector (default: 5)")
    more.add_argument("--seconds", type=flags.above(0), default=3.0, metavar="S",
                      help="length of the clip in step 4 (default: 3)")
    more.add_argument("--speech-llm", type=Path, default=MINIATURE, metavar="DIR", help="the miniature's folder")
    args = flags.parse(parser, argv)
    args.audio += [args.trace] if isinstance(args.trace, str) else []
    if (args.untrained or args.trace) and not args.audio:
        parser.error("--untrained and --trace are about the miniature at work: name a clip")
    if args.audio and (args.preset not in (None, "nano") or args.swap_encoder or args.swap_decoder):
        parser.error("clips are for the miniature: they go with no other preset and no swap")
    return args


def main(argv: list[str] | None = None) -> int:
    """Explore a blueprint, or put the miniature to work."""
    args = arguments(argv)
    from whisper_lab import adapters, audio, files

    clips = audio.find(args.audio) if args.audio else []
    from whisper_lab.speech_llm import ASRError  # with PyTorch

    for folder in filter(None, (args.swap_encoder, args.swap_decoder, args.speech_llm)):
        adapters.refuse(folder)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    try:
        document = {"schema": "whisper-lab/architecture/1"}
        document |= explore(args) if not clips else {"clips": run_miniature(
            clips, args.speech_llm, args.untrained, args.seed, Path(args.output_dir) if args.trace else None)}
    except ASRError as error:  # the modules that travel with a saved model do not know LabError
        raise LabError(error.problem, error.remedy) from error
    if args.output_json:
        files.write_json(args.output_json, document)
    return 0


if __name__ == "__main__":
    console.run(main)
