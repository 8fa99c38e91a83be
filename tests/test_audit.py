"""make audit: faults are listed, and what was not asked about is never called free of faults."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLEAN = {"name": "tiny", "version": "1.0", "vulns": []}
FAULTY = {"name": "old", "version": "0.9", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}]}
UNKNOWN = {"name": "tiny", "skip_reason": "Dependency not found on PyPI and could not be audited: tiny (1.0)"}


@pytest.fixture
def audit(tmp_path):
    """Runs tools/audit.py with a pip-audit that answers the same for each lock: packages, or words on stderr."""
    def run(packages: list[dict] | None, stderr: str = "", status: int = 0) -> subprocess.CompletedProcess:
        program, asked = tmp_path / "pip-audit", tmp_path / "asked"
        answer = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
        program.write_text(f"#!{sys.executable}\nimport sys\n"
                           f"open({str(asked)!r}, 'a').write(' '.join(sys.argv) + '\\n')\n"
                           f"print({answer!r})\nprint({stderr!r}, file=sys.stderr)\nsys.exit({status})\n")
        program.chmod(0o755)
        done = subprocess.run([sys.executable, str(ROOT / "tools/audit.py"), "--pip-audit", str(program)],
                              capture_output=True, text=True)
        done.asked = asked.read_text().splitlines()
        return done
    return run


def test_no_faults(audit):
    done = audit([CLEAN])
    assert (done.returncode, done.stdout) == (0, "no known faults\n")
    # torch's CPU build has torch's faults, under torch's name; the oldest onnxruntime is old on purpose, for one test.
    for lock in {path.name for path in (ROOT / "locks").glob("*.txt")} - {"torch-cpu.txt", "oldest.txt"}:
        assert any(f"locks/{lock}" in line for line in done.asked)
    assert all("--require-hashes" in line and "--disable-pip" in line for line in done.asked)


def test_faults_are_listed_with_what_mends_them(audit):
    done = audit([CLEAN, FAULTY], status=1)
    assert done.returncode == 1 and "old 0.9: PYSEC-1, mended in 1.1\n" in done.stdout


def test_a_database_out_of_reach_says_why_in_two_lines(audit):
    done = audit(None, stderr="Traceback\nConnectionError: no such host", status=1)
    assert done.returncode == 3 and not done.stdout
    assert done.stderr.splitlines()[0].endswith("gives no answer: ConnectionError: no such host")
    assert done.stderr.splitlines()[1].startswith("  try: ") and len(done.stderr.splitlines()) == 2


def test_a_database_that_knows_no_package_is_asked_once_and_is_no_proof(audit):
    done = audit([UNKNOWN])  # pip-audit itself says "No known vulnerabilities found", status 0
    assert done.returncode == 3 and not done.stdout and len(done.asked) == 1
    assert "does not know 1 of 1 asked about, tiny to begin with\n  try: " in done.stderr


def test_one_package_that_is_not_known_keeps_the_others_from_being_called_free(audit):
    assert audit([CLEAN, UNKNOWN]).returncode == 3


def test_faults_are_told_also_where_another_package_is_not_known(audit):
    done = audit([FAULTY, UNKNOWN])
    assert done.returncode == 1 and "PYSEC-1" in done.stdout and "not known there: tiny" in done.stderr
