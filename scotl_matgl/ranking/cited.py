"""BibTeX of what a ranking used: this package, MatGL's sources, descriptors, estimators and methods."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from scotl_matgl import __version__

if TYPE_CHECKING:
    from scotl_matgl.ranking.result import Ranking

_DOI = re.compile(r"(?:doi:|https?://(?:dx\.)?doi\.org/)(10\.\d{4,9}/[^\s,;]+)", re.I)

_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def cited(ranking: Ranking | None, descriptor: Any, sources: Sequence[str]) -> str:
    """BibTeX entries of what was used, each once.

    Parameters
    ----------
    ranking : Ranking or None
        Names the estimators.
    descriptor : CompositionDescriptor
        Its ``citations()`` are taken.
    sources : sequence of str
        Names of sources, whose cards say what to cite.

    Returns
    -------
    str
        Entries that are BibTeX already are kept; references in words become ``@misc`` entries with the reference as the
        note and, where there is one, the DOI. What has no year is no reference.
    """
    from scotl_matgl import registry
    from scotl_matgl.sources.cards import all_cards

    wanted = set(sources)
    references = [
        "The scotl_matgl developers, scotl_matgl: which pretrained crystal model is worth transferring from?, version "
        f"{__version__} (2026)"
    ]
    for card in all_cards(lambda *_: None) if wanted else ():
        if card.name in wanted:
            references += card.citation.split("; ")
    references += descriptor.citations() if descriptor is not None else []
    first = (ranking.results or ranking.screened)[:1] if ranking is not None else ()
    for name in first[0].scores if first else ():
        if name in registry.names("estimators"):
            references += registry.load("estimators", name)().citations()
    return "\n\n".join(entries(references))


def entries(references: Iterable[str]) -> list[str]:
    """References in words as BibTeX entries of different keys, each once.

    Examples
    --------
    >>> print(entries(["Xie, Grossman, Phys. Rev. Lett. 2018, 120, 145301, doi:10.1103/PhysRevLett.120.145301"])[0])
    @misc{xie2018,
      note = {Xie, Grossman, Phys. Rev. Lett. 2018, 120, 145301, doi:10.1103/PhysRevLett.120.145301},
      year = {2018},
      doi = {10.1103/PhysRevLett.120.145301}
    }
    """
    found: dict[str, str] = {}
    keys: set[str] = set()
    for reference in dict.fromkeys(text.strip().rstrip(".") for text in references):
        if reference.startswith("@"):
            found.setdefault(reference, reference)
            continue
        if not _YEAR.search(reference):  # a remark, such as where more is told
            continue
        doi, years = _DOI.search(reference), _YEAR.findall(reference)
        same = doi.group(1).lower() if doi else reference
        if same in found:
            continue
        key = _key(reference, years[0], keys)
        keys.add(key)
        parts = [f"  note = {{{_escaped(reference)}}}"]
        parts.append(f"  year = {{{years[0]}}}")
        parts += [f"  doi = {{{doi.group(1)}}}"] if doi else []
        found[same] = f"@misc{{{key},\n" + ",\n".join(parts) + "\n}"
    return list(found.values())


def _key(reference: str, year: str, taken: set[str]) -> str:
    names = [word for word in re.findall(r"\b[A-Z][a-z]+", reference) if word != "The"]
    words = names or re.findall(r"[a-z]{3,}", reference)
    stem = (words[0].lower() if words else "reference") + year
    return next(
        key for key in (stem, *(f"{stem}{chr(97 + i % 26) * (1 + i // 26)}" for i in range(999))) if key not in taken
    )


def _escaped(text: str) -> str:
    """Text as a value of BibTeX."""
    return re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
