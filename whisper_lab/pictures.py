"""Pictures in this lab's look, at the size of a slide."""

from pathlib import Path

from whisper_lab import files

SIZE = (12.8, 7.2)  # inches; at 100 dots per inch 1280 x 720
DPI = 100


def plot(rows: int = 1, columns: int = 1, **settings):
    """(figure, axes); settings are those of pyplot.subplots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 15, "axes.titlesize": 17, "axes.spines.top": False, "axes.spines.right": False,
                            "axes.grid": True, "grid.color": "#e3e8ee", "axes.axisbelow": True})
    return pyplot.subplots(rows, columns, figsize=SIZE, dpi=DPI, layout="constrained", **settings)


def save(figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all, and close it; returns the path."""
    from matplotlib import pyplot

    with files.atomic(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
    pyplot.close(figure)
    return Path(path)
