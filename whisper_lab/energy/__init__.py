"""What a transcript costs: meters, traces, samples, operations, the record of a run; sweeps and their analysis."""
