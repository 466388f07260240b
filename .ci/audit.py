"""Hold what is installed for an interpreter against the published vulnerabilities: `python .ci/audit.py PYTHON`."""

from __future__ import annotations

import json
import subprocess
import sys


def main(interpreter: str) -> int:
    """Print what pip-audit finds; 1 if that is anything, 0 also where the service cannot be reached."""
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    asked = [interpreter, "-c", place]
    path = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    command = [sys.executable, "-m", "pip_audit", "--path", path, "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        found = []
    audited = [item for item in found if "vulns" in item]
    if not audited:
        reasons = [item["skip_reason"] for item in found] or done.stderr.strip().splitlines()[-1:] or ["no answer"]
        print(f"skipped: the service of published vulnerabilities cannot be reached ({reasons[-1]})")
        return 0
    holes = [(item, hole) for item in audited for hole in item["vulns"]]
    for item, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no version"
        print(f"{item['name']} {item['version']}: {hole['id']}, mended in {mended}")
    print(f"{len(audited)} of {len(found)} distributions audited, {len(holes)} vulnerabilities")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
