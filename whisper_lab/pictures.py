"""Pictures in this lab's look: at the size of a slide, and once more for the width of a telephone."""

import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import files


@dataclass(frozen=True)
class Layout:
    """How large a picture is, and its letters in it."""

    width: float  # inches
    height: float  # inches; of each of its parts where they stand below each other
    dpi: int
    font: float  # points
    narrow: bool = False  # parts below each other, the legend below them

    @property
    def legend(self) -> str:
        """Where a legend stands that has no room inside."""
        return "outside lower center" if self.narrow else "outside right upper"

    @property
    def scale(self) -> float:
        """Lengths in points, against those on a slide; areas go with its square."""
        return self.font / SLIDE.font


    def wrapped(self, title: str) -> str:
        """A title on as many lines as it needs."""
        return "\n".join(textwrap.wrap(title, 42 if self.narrow else 100))


SLIDE = Layout(12.8, 7.2, 100, 15)  # 1280 x 720
# 364 pixels of a page are what a telephone of 390 leaves, two dots each: letters of 12 pixels, as the page's smallest.
TELEPHONE = Layout(3.64, 3.6, 200, 8.5, narrow=True)


@dataclass(frozen=True)
class Picture:
    """One picture of a report: the file at the size of a slide; for a page also the narrow one, which is no file."""

    path: Path
    narrow: bytes  # PNG


def twice(draw: Callable, path: str | Path) -> Picture:
    """Write draw(SLIDE) to `path`; draw(TELEPHONE) beside it in memory. draw: a Layout -> a figure of `plot`."""
    wide = save(draw(SLIDE), path)
    with io.BytesIO() as made:
        _close(draw(TELEPHONE), made)
        return Picture(wide, made.getvalue())


def plot(layout: Layout = SLIDE, columns: int = 1, height: float = 1.0, **settings):
    """(figure, array of `columns` axes): beside each other, in the narrow layout below each other.

    height: of each part there, times layout.height; settings are those of pyplot.subplots.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": layout.font, "axes.titlesize": 1.13 * layout.font,
                            "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
                            "grid.color": "#e3e8ee", "axes.axisbelow": True})
    rows, size = (1, columns), (layout.width, layout.height)
    if layout.narrow:
        settings.pop("width_ratios", None)
        rows, size = (columns, 1), (layout.width, layout.height * height * columns)
    figure, axes = pyplot.subplots(*rows, figsize=size, dpi=layout.dpi, layout="constrained", squeeze=False, **settings)
    return figure, axes.ravel()


def save(figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all, and close it; returns the path."""
    with files.atomic(path) as temporary:
        _close(figure, temporary)
    return Path(path)


def _close(figure, target) -> None:
    from matplotlib import pyplot

    figure.savefig(target, metadata={"Software": None})
    pyplot.close(figure)
