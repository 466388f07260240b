"""Hooks of mkdocs: pages that stand outside docs/ join the site, and links between them are turned into its own."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# Files of the repository outside docs/, and the pages that they become.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "plugins/README.md": "plugins.md",
    "benchmarks/README.md": "benchmarks.md",
    "README.md": "index.md",
}
ORIGINS = {page: file for file, page in PAGES.items() if page != "index.md"}

_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that stand outside docs/."""
    from mkdocs.structure.files import File

    for page, file in ORIGINS.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Show roles of Sphinx, which docstrings have, as the name that they point to."""
    return re.sub(r":(?:func|class|meth|data|attr|mod):<code>~?(?:[\w.]*\.)?(\w+)</code>", r"<code>\1</code>", html)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository into links to pages; what is no page keeps its words alone."""
    here = page.file.src_uri
    if not here.endswith(".md"):
        return markdown
    folder = posixpath.dirname(ORIGINS.get(here, f"docs/{here}"))

    def turned(found: re.Match[str]) -> str:
        words, link = found.groups()
        path, mark, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:") or not path:
            return found.group(0)
        target = posixpath.normpath(posixpath.join(folder, path))
        if target in PAGES:
            place = PAGES[target]
        elif target.startswith("docs/") and (ROOT / target).is_file():
            place = target.removeprefix("docs/")
        elif target == "docs/decisions":
            place = "decisions/README.md"
        else:
            return str(words) if (ROOT / target).exists() else str(found.group(0))
        return f"[{words}]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{mark}{anchor})"

    return _LINK.sub(turned, markdown)
