"""Run a tutorial that needs torch and MatGL, which `make docs` has not, and store what it shows in the notebook itself.

Needs the extras [docs] and [matgl]: python tools/run_tutorial.py docs/tutorials/own_model.ipynb
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(path: Path) -> None:
    """Run it from a fresh kernel; bars, logs and times are left out of what is stored."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
