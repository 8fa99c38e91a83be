"""Ask a database of known faults about every package in the lock. Installs nothing into the lab's environment.

    make audit                            # the package index's own database
    make audit AUDIT="--service osv"      # OSV's

Exit status 0: every package was asked about, none has a known fault. 1: some have, and are listed. 3: the database is
not within reach, or does not know a package: then "no known faults" is not claimed, and two lines say why.
(make shows the status of a step as `Error 3`; its own is always 2.)
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import console  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

# The one with a single package first: where a database knows nothing at all, one question shows it.
# Without oldest.txt: one test runs that old onnxruntime, on the lab's own graphs, because it is old.
LOCKS = ("nodeps.txt", "lab.txt", "torch.txt", "dev.txt", "tools.txt", "openvino.txt", "edge.txt")
CLEAN, FAULTS, NOT_ASKED = 0, 1, 3


def ask(program: str, lock: Path, service: str) -> list[dict]:
    """What pip-audit says of each package in a lock: {"name", "version", "vulns" or "skip_reason"}.

    pip-audit itself is content when a database knows none of the packages. So what it skips is read, not its status.
    Raises LabError where it gives no answer.
    """
    command = [program, "--requirement", str(lock), "--require-hashes", "--disable-pip",
               "--vulnerability-service", service, "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise LabError(f"{program} cannot be run: {error.strerror}", "make audit   (which installs it)") from error
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise LabError(f"the locked packages could not be audited: the {service} database gives no answer: "
                       f"{reason[:200]}", _elsewhere(service)) from error


def _elsewhere(service: str) -> str:
    other = "osv" if service == "pypi" else "pypi"
    return f'run it on a machine with an open network, or ask another database: make audit AUDIT="--service {other}"'


def audit(program: str, service: str) -> list[tuple[str, str, dict]]:
    """(name, version, fault) of every known fault. Raises LabError unless all packages were asked about."""
    found, unknown, asked = [], [], 0
    for name in LOCKS:
        for package in ask(program, ROOT / "locks" / name, service):
            asked += 1
            if "skip_reason" in package:
                unknown.append(package["name"])
            found += [(package["name"], package["version"], fault) for fault in package.get("vulns", [])]
        if unknown and len(unknown) == asked:
            break  # it knew none of these; the other locks would teach nothing new
    if unknown and not found:
        raise LabError(f"the locked packages could not be audited: the {service} database does not know {len(unknown)} "
                       f"of {asked} asked about, {unknown[0]} to begin with", _elsewhere(service))
    console.note("asked", f"about {asked} packages", f"the {service} database")
    if unknown:
        console.warn(f"not known there: {', '.join(unknown)}")
    return found


def main(argv: list[str] | None = None) -> int:
    """Ask, list, and say it with the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pip-audit", default="pip-audit", metavar="PATH", help="(default: %(default)s)")
    parser.add_argument("--service", choices=["pypi", "osv"], default="pypi", help="(default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        found = audit(args.pip_audit, args.service)
    except LabError as error:
        console.error(error)
        return NOT_ASKED
    for name, version, fault in found:
        mended = ", ".join(fault.get("fix_versions", [])) or "no version yet"
        console.result(f"{name} {version}: {fault['id']}, mended in {mended}")
    console.result(f"{len(found)} known faults" if found else "no known faults")
    return FAULTS if found else CLEAN


if __name__ == "__main__":
    console.run(main)
