"""Look over this machine and say what the lab needs, what is missing, and what to do about it.

    python -m whisper_lab.doctor            # a table of [OK], [WARN] and [FAIL]; exit status 1 only with a [FAIL]
    python -m whisper_lab.doctor --fix      # first move torchaudio's native files aside if they cannot load
    python -m whisper_lab.doctor --unfix    # put them back as pip installed them

[WARN] means: one part of the lab is affected, the rest works. It runs on Python alone, so that it can also say that
everything else is missing.
"""

import argparse
import dataclasses
import textwrap

from whisper_lab import console, doctor_checks, files, torchaudio_repair
from whisper_lab.doctor_checks import FAIL, OK, WARN, Check


def build_parser() -> argparse.ArgumentParser:
    """The command line: --fix and --unfix exclude each other."""
    made = console.parser(__doc__, "output_json", "quiet", "log_level")
    repair = made.add_mutually_exclusive_group()
    repair.add_argument("--fix", action="store_true",
                        help="move torchaudio's native files aside if they cannot load (default: change nothing)")
    repair.add_argument("--unfix", action="store_true", help="put them back (default: change nothing)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Repair if asked, check, print; 1 if a check failed, else 0."""
    args = console.parse(build_parser(), argv)
    if args.fix:
        console.note("fix", torchaudio_repair.fix(), "asked for with --fix")
    if args.unfix:
        console.note("unfix", torchaudio_repair.unfix(), "asked for with --unfix")
    checks = []
    for group in doctor_checks.GROUPS:
        console.log.info("checking %s", group.__doc__.partition(":")[0])
        checks += run_group(group)
    print_checks(checks, only_trouble=args.quiet)
    if args.output_json:
        files.write_json(args.output_json, report(checks))
    return 1 if any(check.status == FAIL for check in checks) else 0


def run_group(group) -> list[Check]:
    """The checks of one group; a check that itself breaks is a [FAIL], not the end of the doctor."""
    try:
        return list(group())
    except Exception as error:
        name = group.__doc__.partition(":")[0]
        return [Check(FAIL, name, f"the check itself failed: {type(error).__name__}: {error}",
                      "pip install -r requirements.txt, then run the doctor again")]


def print_checks(checks: list[Check], only_trouble: bool) -> None:
    """One line a check, its fix under it, and a count. Plain text: rich may be what is missing."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        if only_trouble and check.status == OK:
            continue
        console.result(f"{'[' + check.status + ']':<7}{check.name:<{width}}  {check.found}")
        if check.fix:
            console.result(textwrap.indent(f"fix: {check.fix}", " " * (width + 9)))
    count = {status: sum(check.status == status for check in checks) for status in (OK, WARN, FAIL)}
    console.result(f"{count[OK]} OK, {count[WARN]} WARN, {count[FAIL]} FAIL")


def report(checks: list[Check]) -> dict:
    """The JSON document: the machine's card and every check."""
    from whisper_lab import machine

    try:
        card = machine.card()
    except ImportError as error:
        card = {"reason": f"no card without {error.name}"}
    listed = [dataclasses.asdict(check) for check in checks]
    return {"schema": "whisper-lab/doctor/1", "machine": card, "checks": listed}


if __name__ == "__main__":
    console.run(main)
