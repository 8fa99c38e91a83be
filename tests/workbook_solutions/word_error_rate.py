"""Reference solution."""


def word_error_rate(reference: str, hypothesis: str) -> float:
    said, written = reference.split(), hypothesis.split()
    cost = [list(range(len(written) + 1))]
    for i, one in enumerate(said, 1):
        row = [i]
        for j, other in enumerate(written, 1):
            row.append(min(cost[i - 1][j] + 1, row[j - 1] + 1, cost[i - 1][j - 1] + (one != other)))
        cost.append(row)
    return cost[-1][-1] / len(said)
