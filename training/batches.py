"""Batches of training clips: drawn, mixed and degraded as their number says, from easy to hard."""

import math
import random

import torch

from training import initial_checkpoint
from training.audio_augmentation import Augmenter
from training.examples import Planner, collate
from whisper_lab.spoken.voices import SAMPLE_RATE

WINDOW = initial_checkpoint.WINDOW_S * SAMPLE_RATE
FIRST_PART = 0.4  # of the steps; see examples.KINDS
EASY_STEPS = 800  # over which clips grow longer and dirtier
POSITION = 320  # samples to one encoder position: 20 ms


class Batches(torch.utils.data.Dataset):
    """Batch number i is always the same: drawn from a generator seeded with it.

    Clips of like length stand together and the batch is only as long as they are, which is three times cheaper than
    full windows; some batches are full windows, because that is what the finished model will see.
    """

    def __init__(self, planner: Planner, audio, augmenter: Augmenter, args, pad: int):
        self.planner, self.audio, self.augmenter, self.args, self.pad = planner, audio, augmenter, args, pad

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{self.args.seed}/{step}")
        part = 2 if self.args.init else int(step >= FIRST_PART * self.args.steps)
        plans = [self.planner.draw(rng, part=part) for _ in range(self.args.batch_size * 4)]
        plans.sort(key=lambda p: p.recorded)
        first = rng.randrange(2 if ease(step, self.args) < 1 else 4) * self.args.batch_size  # short ones first
        plans = plans[first : first + self.args.batch_size]
        full = rng.random() < (0.06 if step < 0.8 * self.args.steps else 0.33)
        longest = plans[-1].recorded + rng.randrange(SAMPLE_RATE // 2)
        if full:
            plans = plans[::2]
        window = WINDOW if full else min(WINDOW, math.ceil(longest / POSITION) * POSITION)
        batch = collate(plans, self.audio, self.pad, window)
        batch = {name: torch.from_numpy(array) for name, array in batch.items()}
        if self.augmenter.device == "cpu":  # then the workers render; an accelerator does it better itself
            batch = self.render(batch, step)
        return batch

    def render(self, batch: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Replace the batch's sound by its degraded log-mel features; the step seeds the degradation."""
        self.augmenter.generator.manual_seed(self.args.seed * 1_000_003 + step)
        self.augmenter.strength = ease(step, self.args)
        batch["features"] = self.augmenter.render(batch)
        del batch["wave"]
        return batch


def ease(step: int, args) -> float:
    """From 0 at the first step to 1 when the gentle beginning is over; a trained model needs none."""
    return 1.0 if args.init else min(1.0, step / EASY_STEPS)
