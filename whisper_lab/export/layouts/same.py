"""The gate of a layout: fed as its own runtime feeds it, it says what the pair says that it was made from.

The pair has passed its gates against PyTorch, and a layout has the same nodes over the same weights; so there is no
error to allow for but that of sums in another order.
"""

import gc
from collections.abc import Callable

import numpy as np

from whisper_lab.console import LabError
from whisper_lab.export import pair
from whisper_lab.export.gates import Gate, below, relative_error
from whisper_lab.export.layouts import Job

# Relative error of the logits on the worst sound; a cache that is one token off or a layer's that is another's is above
# 0.1. Measured on whisper-base and nano: none at all but in fp16, 5e-4, where the cross cache is not rounded on its way
# from one graph to the other.
LIMIT = {"fp32": 1e-5, "fp16": 1e-2, "int8": 1e-2, "int4": 1e-2}


def require(layout: str, job: Job, open_graphs: Callable) -> Gate | None:
    """Compare the layout's graphs with the pair on each sound; None where nothing is to be compared.

    open_graphs() -> an object with logits(features, ids, prompt). Raises LabError where they differ.
    """
    if job.sounds is None:
        return None
    runtime = pair.open_runtime(job.pair["encoder"], job.pair["decoder"], job.threads)
    right = [pair.answer(runtime, sound.forced, sound.prompt_length, runtime.encode(sound.features))[0]
             for sound in job.sounds]
    del runtime
    gc.collect()  # two decoders are not held at once
    graphs = open_graphs()
    errors = [relative_error(graphs.logits(sound.features, sound.forced, sound.prompt_length), wanted)
              for sound, wanted in zip(job.sounds, right, strict=True)]
    worst = int(np.argmax(errors))
    gate = below(f"layout {layout} = pair", errors[worst], LIMIT[job.precision],
                 f"logits of {len(errors)} sounds, the worst on {job.sounds[worst].name}")
    if not gate.passed:
        raise LabError(f"the {layout} layout of {job.checkpoint.name} {job.precision} says other things than the pair: "
                       f"{gate.said()}; {gate.detail}",
                       f"leave out --layout {layout}: the pair itself is good, it has passed its gates")
    return gate
