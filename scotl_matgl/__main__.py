"""``python -m scotl_matgl`` is the command line."""

from __future__ import annotations

from scotl_matgl.cli.main import main

if __name__ == "__main__":
    main()
