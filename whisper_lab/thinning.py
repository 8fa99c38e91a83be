"""The rest of a window, thinned: a few silent positions stand for all that lie behind a shorter one.

A Whisper was trained on windows of 30 s, most of them padded with silence, and notices by that silence that the speech
has ended. Hundreds of its positions say the same. So a shorter window ends in a few of them, spread over the rest of
the whole one, and each counts in attention as often as positions it stands for: the logarithm of their number is added
to its scores, and softmax makes the number of it. (Bolya et al., "Token Merging: Your ViT But Faster", 2023, call this
proportional attention; there, positions that are alike are merged, and here it is known beforehand which are.)

PyTorch's reference and the module that becomes the graph take it from here, so the two hear the same.
"""

import torch
from torch import Tensor

EACH, MOST = 20, 60  # positions that one stands for, or more where MOST of them would not do


def thin(states: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sound's positions and those that stand for the rest of the window.

    states: of the convolutions [A, H, d]; table: the positions of a whole window [W, d]. Returns the states [A, P, d],
    what the table has for them [P, d], and the logarithm of how many each stands for [P], 0 for those of the sound.
    P = H + min((W - H) / EACH rounded up, MOST), so a window that is whole stays as it is. What stands for the rest is
    the last state but one, which has to be of silence: the last one's convolution saw the edge of the features.
    """
    heard, whole = states.shape[1], table.shape[0]
    left = whole - heard
    wanted = torch.sym_min((left + EACH - 1) // EACH, MOST)
    rest = torch.sym_max(wanted, 0)  # a longer one finds no positions, and fails
    each = torch.sym_max(rest, 1)  # never 0: nothing is left of a whole window
    index, step = torch.arange(heard + rest, device=states.device), left // each
    is_heard, behind = index < heard, index - heard
    longer = torch.minimum(behind, torch.full_like(behind, left - step * each))  # the first stand for one more
    middle = heard + behind * step + longer + step // 2
    states = states.index_select(1, torch.where(is_heard, index, torch.sym_max(heard - 2, 0)))
    places = table.index_select(0, torch.where(is_heard, index, middle))
    weights = torch.log(torch.where(is_heard, each, left) / each)
    # A conversion to what it is already would be recorded too, as a step of the graph.
    return states, places, weights if weights.dtype == states.dtype else weights.to(states.dtype)
