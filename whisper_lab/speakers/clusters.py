"""Which fingerprints belong together: agglomerative clustering by cosine, with SciPy.

Every fingerprint begins as a group of its own; the two groups whose members are on average most alike are joined,
again and again, until none are alike enough (`scipy.cluster.hierarchy`, average linkage). What is alike enough decides
how many speakers there are. Average linkage is described by Sokal and Michener 1958.
"""

import numpy as np

from whisper_lab.speakers.encoder import unit

# Cosine distance (1 - cosine) at which two groups are two voices. Chosen on joined recordings of nine voices: 0.55 to
# 0.65 find the right number in 7 of 10, and no other limit does in more. The files that are judged hold other voices
# (benchmarks/speakers.py). Pieces of one voice are 0.42 apart at the median, those of two 0.89, over a telephone 0.68.
APART = 0.6
FEWEST = 3  # fingerprints; a smaller group is a cough, a laugh or two voices at once, and joins the one it is most like
MOST = 1200  # fingerprints compared with each other at once, a quarter of an hour: the work grows with the square


def voices(fingerprints: np.ndarray, number: int | None = None) -> np.ndarray:
    """float32 [n, size], each of length 1 -> int [n], the voice of each, 0, 1, ... in order of their appearance.

    number: how many voices there are; None: as many as are APART. Never more than there are fingerprints.
    """
    if len(fingerprints) < 2 or number == 1:
        return np.zeros(len(fingerprints), int)
    groups = np.concatenate([part + 10_000 * i for i, part in enumerate(_parts(fingerprints))])
    if len(fingerprints) > MOST:  # the parts' voices are the new fingerprints
        groups = _joined_parts(fingerprints, groups, number)
    elif number is not None:
        groups = _grouped(fingerprints, number)
    if number is None:
        groups = without_small(fingerprints, groups)
    return _in_order(groups)


def _parts(fingerprints: np.ndarray) -> list[np.ndarray]:
    """The groups within each MOST fingerprints that follow each other."""
    return [_grouped(fingerprints[first:first + MOST]) for first in range(0, len(fingerprints), MOST)]


def _grouped(fingerprints: np.ndarray, number: int | None = None) -> np.ndarray:
    """int [n]: equal where two belong together."""
    from scipy.cluster import hierarchy

    if len(fingerprints) < 2:
        return np.zeros(len(fingerprints), int)
    tree = hierarchy.linkage(fingerprints, "average", metric="cosine")
    if number is None:
        return hierarchy.fcluster(tree, APART, "distance")
    return hierarchy.cut_tree(tree, min(number, len(fingerprints)))[:, 0]


def _joined_parts(fingerprints: np.ndarray, groups: np.ndarray, number: int | None) -> np.ndarray:
    """Groups of a long recording's parts -> groups of the whole, by their mean fingerprints.

    Groups that are too small to have a mean worth comparing wait: each joins the voice it is most like.
    """
    names, counts = np.unique(groups, return_counts=True)
    large = names[counts >= FEWEST] if number is None or (counts >= FEWEST).sum() >= number else names
    means = unit(np.stack([fingerprints[groups == name].mean(axis=0) for name in large]))
    joined = dict(zip(large, _grouped(means, number), strict=True))
    found = np.array([joined.get(name, -1) for name in groups])
    return nearest(fingerprints, found, np.unique(found[found >= 0]))


def without_small(fingerprints: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Groups of fewer than FEWEST dissolved, unless all are as small."""
    names, counts = np.unique(groups, return_counts=True)
    large = names[counts >= FEWEST]
    return groups if not len(large) else nearest(fingerprints, groups, large)


def nearest(fingerprints: np.ndarray, groups: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """int [n]: for each fingerprint the group among `kept` whose mean it is most like."""
    means = unit(np.stack([fingerprints[groups == name].mean(axis=0) for name in kept]))
    return kept[(fingerprints @ means.T).argmax(axis=1)]


def _in_order(groups: np.ndarray) -> np.ndarray:
    names, first = np.unique(groups, return_index=True)
    order = {name: i for i, name in enumerate(names[np.argsort(first)])}
    return np.array([order[name] for name in groups], int)
