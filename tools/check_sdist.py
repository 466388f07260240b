"""Check source archives: everything that the repository tracks for a distribution, and nothing of another one."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What the repository tracks and no source archive needs.
_LEFT_OUT = (".ci/", ".github/", ".gitignore", ".pre-commit-config.yaml", "benchmarks/", "plugins/", "setup.cfg")


def main(folder: str) -> int:
    """Print what is missing or stray in the core's archive, and what is stray in those of plugins; 1 if anything is."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    wanted = {name for name in tracked.stdout.split("\n") if name and not name.startswith(_LEFT_OUT)}
    failed = 0
    for archive in sorted(Path(folder).glob("*.tar.gz")):
        with tarfile.open(archive) as opened:
            names = {name.partition("/")[2] for name in opened.getnames()} - {"", "PKG-INFO", ".gitignore"}
        package = archive.name.rpartition("-")[0].replace("-", "_")
        core = package == "scotl_matgl"
        missing = sorted(wanted - names) if core else []
        stray = [name for name in sorted(names) if core and name not in wanted and (ROOT / name).is_file()]
        stray += [name for name in sorted(names) if not core and name.startswith(("scotl_matgl/", "plugins/"))]
        for what, found in (("missing", missing), ("stray", stray)):
            for name in found:
                print(f"{archive.name}: {what}: {name}")
        failed += bool(missing or stray)
        print(f"{archive.name}: {len(names)} files")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
