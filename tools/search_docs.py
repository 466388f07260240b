"""Search the built site for the questions of docs/questions.md: the page that answers each must be among the first."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Pages that a reader looks at before another search.
FIRST = 3


def questions() -> list[tuple[str, str]]:
    """Each question, and the page that its last column names."""
    text = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| (.*?) \| .*?\[[^\]]*\]\(([^)#]+)[^)]*\) \|$", text, re.M)
    return [(question, re.sub(r"(?:index)?\.(?:md|ipynb)$", "", page).rstrip("/")) for question, page in rows]


def main() -> int:
    """Print where each page stands; 1 if one is not among the first."""
    import lunr

    records = json.loads((ROOT / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    # The page of the questions would find itself.
    records = [record for record in records if not record["location"].startswith("questions/")]
    fields = [{"field_name": "title", "boost": 10}, "text"]
    documents = [(record, {"boost": record.get("boost", 1)}) for record in records]
    index = lunr.lunr(ref="location", fields=fields, documents=documents)
    asked = questions()
    failed = 0
    for question, page in asked:
        words = " ".join(re.findall(r"[A-Za-z]{3,}", question))
        found = [result["ref"].partition("#")[0].rstrip("/") for result in index.search(words)]
        places = list(dict.fromkeys(found))
        place = places.index(page) + 1 if page in places else 0
        lost = not 1 <= place <= FIRST
        failed += lost
        if lost:
            print(f"{question}\n  answered in {page}, at place {place or 'none'}; first are {places[:FIRST]}")
    print(f"{len(asked) - failed} of {len(asked)} questions find their page among the first {FIRST}")
    return 1 if failed or len(asked) != 15 else 0


if __name__ == "__main__":
    sys.exit(main())
