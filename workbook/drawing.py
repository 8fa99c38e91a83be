"""Whisper's architecture on one slide, drawn by code: media/whisper-architecture.png.

    python -m workbook.drawing                          # whisper-base
    python -m workbook.drawing --size large-v3 --output large-v3.png

Shapes come from the published size's architecture, the spectrogram from a clip in media/. What the picture shows is
what the two graphs of 03 compute: the keys and values of every cross-attention are made once per window, behind the
encoder; the decoder's loop over tokens stays outside of both.
"""

from pathlib import Path

from whisper_lab import audio, console, files, flags
from whisper_lab.features import FeatureSpec, log_mel

ROOT = Path(__file__).resolve().parent.parent
SIZE, DPI = (12.8, 7.2), 125  # inches, dots per inch: 1600 x 900
WIDE, HIGH = 160, 90  # the drawing's own units
BLUE, ORANGE, GREEN, GREY, PURPLE, WHITE = "#cfe3f3", "#f8d9c0", "#cfe8dc", "#e6e9ed", "#e6d7ee", "#ffffff"
LINE = "#2b2f36"
ENCODER_X, DECODER_X = 36, 108
WINDOW_S, SHOWN_S = 30, 6  # of the published models; of the clip


class Board:
    """A drawing area with boxes and arrows."""

    def __init__(self):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        self.figure = pyplot.figure(figsize=SIZE, dpi=DPI)
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDE), ylim=(0, HIGH))
        self.axes.axis("off")

    def box(self, x: float, y: float, width: float, height: float, text: str, colour: str, size: float = 11.5,
            **style) -> None:
        """A rounded box centred at (x, y)."""
        from matplotlib.patches import FancyBboxPatch

        self.axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, facecolor=colour,
                                           edgecolor=LINE, boxstyle="round,pad=0,rounding_size=0.9",
                                           **{"linewidth": 1.2, **style}))
        self.text(x, y, text, size)

    def text(self, x: float, y: float, text: str, size: float = 10, **style) -> None:
        self.axes.text(x, y, text, fontsize=size, **{"ha": "center", "va": "center", "color": LINE, **style})

    def arrow(self, *points: tuple[float, float], head: bool = True, **style) -> None:
        """A line through the points, with a head at its end."""
        style = {"color": LINE, "linewidth": 1.5, **style}
        self.axes.plot(*zip(*points, strict=True), solid_capstyle="round", solid_joinstyle="round", **style)
        if head:
            self.axes.annotate("", points[-1], points[-2], arrowprops={
                "arrowstyle": "-|>", "color": style["color"], "linewidth": style["linewidth"], "shrinkA": 0,
                "shrinkB": 0, "mutation_scale": 13})

    def plus(self, x: float, y: float) -> None:
        """Where a residual comes back, or positions are added."""
        from matplotlib.patches import Circle

        self.axes.add_patch(Circle((x, y), 1.25, facecolor=WHITE, edgecolor=LINE, linewidth=1.2, zorder=3))
        self.axes.plot([x - 0.7, x + 0.7], [y, y], color=LINE, linewidth=1.2, zorder=4)
        self.axes.plot([x, x], [y - 0.7, y + 0.7], color=LINE, linewidth=1.2, zorder=4)


def sublayer(board: Board, x: float, y: float, name: str, colour: str) -> float:
    """LayerNorm, then `name`, then the sum with what came in; from y upwards. Returns where it ends."""
    board.arrow((x, y), (x, y + 1.8))
    board.box(x, y + 3.1, 23, 2.6, "LayerNorm", WHITE, 10)
    board.arrow((x, y + 4.4), (x, y + 5.8))
    board.box(x, y + 7.6, 23, 3.6, name, colour)
    board.arrow((x, y + 9.4), (x, y + 10.9))
    board.plus(x, y + 12.1)
    board.arrow((x, y + 0.8), (x - 14.5, y + 0.8), (x - 14.5, y + 12.1), (x - 1.25, y + 12.1))  # the residual
    return y + 13.3


def encoder(board: Board, shape, x: float) -> None:
    """From the spectrogram at the bottom to the final LayerNorm and the cross keys and values."""
    frames, positions = WINDOW_S * 100, WINDOW_S * 50
    spectrogram(board, shape.mel_bins, (x - 18, 5, 36, 7.5))
    board.text(x, 2.5, f"log-mel spectrogram  [{shape.mel_bins} × {frames}]\na column every 10 ms, padded to "
               f"{WINDOW_S} s", 9.5)
    board.arrow((x, 12.5), (x, 14.4))
    board.box(x, 16.2, 36, 3.6, f"Conv1d, 3 wide, {shape.mel_bins} → {shape.width};  GELU", GREEN)
    board.arrow((x, 18), (x, 19.6))
    board.box(x, 21.4, 36, 3.6, "Conv1d, 3 wide, stride 2;  GELU", GREEN)
    board.arrow((x, 23.2), (x, 25.2))
    board.plus(x, 26.45)
    board.box(x - 25, 26.45, 16, 4.8, f"sinusoidal\npositions [{positions}]", GREY, 9.5)
    board.arrow((x - 17, 26.45), (x - 1.25, 26.45))
    board.text(x + 2.2, 28.9, f"[{positions} × {shape.width}]: one every 20 ms", 9.5, ha="left")
    frame(board, x, 30.6, 59.9, f"× {shape.encoder_layers}")
    board.arrow((x, 27.7), (x, 31.2), head=False)
    middle = sublayer(board, x, 31.2, "self-attention", BLUE)
    end = sublayer(board, x, middle + 0.6, "Linear, GELU, Linear", GREEN)
    board.arrow((x, middle), (x, middle + 0.7), head=False)
    board.arrow((x, end), (x, 64.4))
    board.box(x, 66, 30, 3.2, "LayerNorm", WHITE)
    board.text(x, 86.6, "ENCODER", 15, weight="bold")
    board.text(x, 83.6, "runs once per window", 10.5)


def branches(board: Board, shape, x: float, target: float) -> None:
    """The parallel branches behind the encoder: a key and a value for the cross-attention of every decoder layer."""
    last = shape.decoder_layers - 1
    board.arrow((x, 67.6), (x, 70.2), head=False)
    places = [("K₀", 12.4), ("V₀", 7.4), ("K₁", 1.6), ("V₁", -3.4), (f"K{sub(last)}", -11.4), (f"V{sub(last)}", -16.4)]
    for name, left in places:
        board.arrow((x, 70.2), (x - left, 70.2), (x - left, 72.4))
        board.box(x - left, 74.1, 4.5, 3.4, name, PURPLE, 11)
        board.arrow((x - left, 75.8), (x - left, 78), head=False)
    board.text(x + 7.4, 74.1, "· · ·", 12)
    board.arrow((x - 12.4, 78), (71, 78), (71, target), (target_x(), target), color="#7a3e9d", linewidth=2)
    board.text(71, 80.8, f"cross-attention's keys and values: {2 * shape.decoder_layers} branches,\none K and one V "
               "for every decoder layer", 9.5, color="#7a3e9d", ha="center")


def sub(number: int) -> str:
    """A number in subscript digits."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def target_x() -> float:
    """The left edge of the cross-attention's box."""
    return DECODER_X - 11.5


def decoder(board: Board, shape, x: float) -> float:
    """From the tokens at the bottom to the logits; returns the height of the cross-attention."""
    board.text(x + 2, 2, "<|startoftranscript|> <|en|> <|transcribe|> <|notimestamps|> turn on the …", 9.3,
               family="monospace")
    board.text(x - 18, 4.6, "tokens", 10, ha="right")
    board.arrow((x, 3.4), (x, 5.2))
    board.box(x, 7, 34, 3.6, f"token embedding  [vocab × {shape.width}]", ORANGE)
    board.arrow((x, 8.8), (x, 10.6))
    board.plus(x, 11.85)
    board.box(x - 26, 11.85, 16, 4.8, "learned\npositions [448]", GREY, 9.5)
    board.arrow((x - 18, 11.85), (x - 1.25, 11.85))
    frame(board, x, 14.6, 57.8, f"× {shape.decoder_layers}")
    board.arrow((x, 13.1), (x, 15.2), head=False)
    first = sublayer(board, x, 15.2, "causal self-attention", BLUE)
    board.arrow((x, first), (x, first + 0.7), head=False)
    second = sublayer(board, x, first + 0.6, "cross-attention", PURPLE)
    board.arrow((x, second), (x, second + 0.7), head=False)
    third = sublayer(board, x, second + 0.6, "Linear, GELU, Linear", GREEN)
    board.text(x + 17.6, 22.8, "K, V of earlier\ntokens: cache", 9.5, ha="left")
    board.arrow((x + 17.2, 22.8), (x + 11.5, 22.8))
    board.arrow((x, third), (x, 59.8))
    board.box(x, 61.4, 26, 3.2, "LayerNorm", WHITE)
    board.arrow((x, 63), (x, 65.2))
    board.box(x, 67, 34, 3.6, "logits:  states × embeddingᵀ", ORANGE)
    board.arrow((x, 68.8), (x, 71))
    board.box(x, 72.8, 34, 3.6, "token rules; greedy or beam search", GREY, 10.5)
    board.text(x, 86.6, "DECODER", 15, weight="bold")
    board.text(x, 83.6, "runs once per token", 10.5)
    return first + 0.6 + 7.6


def loop(board: Board, x: float) -> None:
    """The next token goes back in; the logits use the embedding's own weights."""
    board.arrow((x + 17, 72.8), (x + 48, 72.8), (x + 48, 2), (x + 39, 2), color="#b3470f", linewidth=2)
    board.text(x + 46.4, 40, "next token, until <|endoftext|>", 10.5, rotation=90, color="#b3470f")
    board.arrow((x + 17, 7), (x + 41, 7), (x + 41, 67), (x + 17, 67), head=False, linestyle=(0, (4, 3)))
    board.text(x + 39.4, 40, "the same weights (tied)", 10.5, rotation=90)
    board.text(x + 19, 76.6, "turn on the lights …", 10.5, family="monospace", ha="left")
    board.arrow((x, 74.6), (x, 76.6), (x + 18.4, 76.6))


def frame(board: Board, x: float, bottom: float, top: float, times: str) -> None:
    """A dashed frame around a block that is repeated."""
    from matplotlib.patches import FancyBboxPatch

    board.axes.add_patch(FancyBboxPatch((x - 16.5, bottom), 31.5, top - bottom, facecolor="#fafbfc",
                                        edgecolor="#7a828c", linestyle=(0, (5, 3)),
                                        boxstyle="round,pad=0,rounding_size=1.2", zorder=0))
    board.text(x + 15.8, top - 1.6, times, 14, ha="left", weight="bold")


def spectrogram(board: Board, mels: int, where: tuple[float, float, float, float]) -> None:
    """The log-mel spectrogram of a real clip."""
    left, bottom, width, height = where
    sound = audio.load(ROOT / "media" / "hello.wav")
    picture = log_mel(sound.samples, FeatureSpec(mels, 400, 160, audio.SAMPLE_RATE, SHOWN_S * audio.SAMPLE_RATE))
    board.axes.imshow(picture, origin="lower", aspect="auto", cmap="magma", interpolation="bilinear",
                      extent=(left, left + width, bottom, bottom + height))
    board.axes.set(xlim=(0, WIDE), ylim=(0, HIGH))


def draw(size: str, output: Path) -> Path:
    """The picture of one published size."""
    from matplotlib import pyplot

    from training.make_random_checkpoint import ARCHITECTURES

    shape, board = ARCHITECTURES[size], Board()
    encoder(board, shape, ENCODER_X)
    branches(board, shape, ENCODER_X, decoder(board, shape, DECODER_X))
    loop(board, DECODER_X)
    board.text(2, 86.6, f"whisper-{size}", 13, ha="left", weight="bold")
    with files.atomic(output) as temporary:
        board.figure.savefig(temporary, metadata={"Software": None})
        pyplot.close(board.figure)
        shrink(temporary)
    return output


def shrink(path: Path) -> None:
    """A palette of 256 colours, chosen for coverage: half the bytes, and small colours stay what they are."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def main(argv: list[str] | None = None) -> int:
    from training.make_random_checkpoint import ARCHITECTURES

    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("--size", choices=list(ARCHITECTURES), default="base", help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "media" / "whisper-architecture.png", metavar="FILE",
                        help="(default: media/whisper-architecture.png)")
    args = flags.parse(parser, argv)
    made = draw(args.size, args.output)
    console.result(f"{made.name}: {made.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    console.run(main)
