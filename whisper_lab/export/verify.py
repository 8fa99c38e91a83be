"""All parity gates of one pair of graphs, in the order in which a fault is cheapest to find."""

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from whisper_lab import console, machine
from whisper_lab.console import LabError
from whisper_lab.export import diverge, end_to_end, parity, structure
from whisper_lab.export.gates import ARITHMETIC, Gate
from whisper_lab.export.graphs import release_memory
from whisper_lab.export.pair import HeardOnce, session


def run(pair: dict[str, Path], precision: str, runtime, sounds: list, long_run: parity.LongRun, *,
        fp32_bytes: dict[str, int], excluded: dict[str, int], alignment: bool = False, half_operators: bool = False,
        trained: bool = True, threads: int | None = None, seed: int = 0, optimized: bool = False,
        vectors: dict[str, dict] | None = None, go_on: bool = False) -> list[Gate]:
    """Structure, numbers, shapes, pieces, text. Returns every gate's verdict; a failed one raises nothing here.

    runtime: TorchWhisper; sounds and long_run: what it said (reference.make, parity.long_run); trained: the
    checkpoint's words mean something; vectors: per part, the biases and LayerNorms of the float32 graph
    (structure.vectors), for int8 and int4; go_on: also after a gate that failed.
    """
    gates = []
    for part, path in pair.items():
        gates += structure.check(path, part, precision, runtime.model.config, fp32_bytes[part], excluded[part],
                                 alignment, half_operators, optimized)
        if vectors and precision not in ARITHMETIC:
            gates += structure.kept(path, part, vectors[part])
    if not go_on and not all(gate.passed for gate in gates):
        return gates  # numbers of a malformed graph would only confuse
    release_memory()  # what was read to look at its structure
    steps = _of_what_it_computes(pair, precision, runtime, sounds, long_run, trained, threads, seed)
    return gates + _one_by_one(console.counted(steps, f"gates {precision}", "set"), go_on)


def _of_what_it_computes(pair: dict[str, Path], precision: str, runtime, sounds: list, long_run: parity.LongRun,
                         trained: bool, threads: int | None, seed: int) -> list[Callable[[], list[Gate]]]:
    """Open both graphs; returns the gates on their layers, numbers, pieces, shapes and text, to be called in order.

    The decoder is opened while nothing else is there: in half precision that takes much memory.
    """
    encoder = session(pair["encoder"], threads)
    wide = parity.sweep_encoder(encoder, sounds)  # two recordings' attention
    del encoder
    machine.give_back_memory()
    decoder = session(pair["decoder"], threads)
    machine.give_back_memory()
    graphs = HeardOnce.of_sessions(session(pair["encoder"], threads), decoder, runtime)
    return [lambda: [] if precision in ARITHMETIC else parity.check_layers(pair, sounds, precision, threads),
            lambda: parity.numbers(graphs, sounds, precision), lambda: parity.pieces(graphs, sounds, precision, seed),
            lambda: parity.shapes(graphs, long_run, sounds, precision, wide, trained),
            lambda: end_to_end.text(graphs, sounds, precision, trained)]


def _one_by_one(steps: Iterable[Callable[[], list[Gate]]], go_on: bool) -> list[Gate]:
    """The gates of these steps up to the first that fails: it says what is wrong, later ones would repeat it."""
    gates: list[Gate] = []
    for step in steps:
        machine.give_back_memory()  # of the step before, or of opening the graphs: a tenth of the peak
        gates += step()
        if not go_on and not all(gate.passed for gate in gates):
            break
    return gates


def explain(gates: list[Gate], pair: dict[str, Path], precision: str, runtime, sounds: list) -> str:
    """One line for the first gate that failed: what, by how much, and the first diverging node."""
    gate = next(gate for gate in gates if not gate.passed)
    seen = "; ".join(filter(None, [gate.said(), gate.detail]))
    line = f"gate '{gate.name}' of the {gate.part or 'pair'} failed: {seen}"
    places = []
    for part in [gate.part] if gate.part else pair:
        try:
            places.append(f"{part}: {diverge.locate(pair[part], part, precision, runtime, sounds[0])}")
        except Exception as error:  # a graph broken enough cannot be run; the gate's own line says enough
            places.append(f"{part}: cannot be run ({type(error).__name__})")
    return f"{line}; first diverging node, {'; '.join(places)}"


def failure(explanation: str, rejected: list[Path]) -> LabError:
    """The error that ends an export whose gate failed."""
    look = shlex.join(["python", "05-explore-in-netron.py", "--graphs", *map(str, rejected)])
    return LabError(f"the export is not faithful: {explanation}",
                    f"--no-verify writes them regardless; to look at them: {look}")
