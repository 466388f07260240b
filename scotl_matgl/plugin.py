"""The one door for plugin authors: whatever a zoo, descriptor, bridge or estimator of one's own is made of.

What stands here keeps its name and its meaning from release to release; the modules behind may move. Names are imported
when they are first used, so a plugin's module with `cards` stays light. To check a plugin, see
:mod:`scotl_matgl.testing`.

Examples
--------
>>> from scotl_matgl.plugin import parse_compositions
>>> parse_compositions(["Fe2O3", "NaCl"]).dense_fractions().shape
(2, 118)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public name to its module, imported when first used (PEP 562).
_PUBLIC = {
    # What went wrong, in a sentence.
    "IncompatibleWeightsError": "encoders.probes",
    "InputError": "exceptions",
    "ScotlMatglWarning": "exceptions",
    # Formulas and crystals.
    "Compositions": "chemistry.compositions",
    "Corpus": "chemistry.corpus",
    "Crystal": "chemistry.crystals",
    "SYMBOLS": "chemistry.elements",
    "as_crystal": "chemistry.crystals",
    "load_element_tables": "descriptors.element_tables",
    "parse_compositions": "chemistry.compositions",
    "read_crystals": "chemistry.crystal_files",
    # Files.
    "file_sha256": "storage",
    "home": "storage",
    "write_whole": "storage",
    # Zoos and their encoders.
    "ACTIVATIONS": "encoders.network",
    "AtomValues": "encoders.potentials",
    "CompositionEncoder": "encoders.contracts",
    "CrystalGraph": "encoders.graphs",
    "Encoded": "encoders.contracts",
    "GraphBatch": "encoders.graphs",
    "GraphEncoder": "encoders.base",
    "Network": "encoders.network",
    "NetworkEncoder": "encoders.composition",
    "PotentialEncoder": "encoders.potentials",
    "SourceCard": "sources.cards",
    "SourceEncoder": "encoders.contracts",
    "TOLERANCE": "encoders.probes",
    "batch_graphs": "encoders.graphs",
    "build_graph": "encoders.graphs",
    "encode_crystals": "encoders.base",
    "layer_widths": "encoders.network",
    "merge_equal": "encoders.graphs",
    "packaged_weights": "encoders.potentials",
    "read_cards": "sources.cards",
    "read_published": "encoders.published",
    "reference_crystals": "encoders.probes",
    "select": "sources.cards",
    # Descriptors, bridges, estimators.
    "Bridge": "bridges.base",
    "CompositionDescriptor": "descriptors.base",
    "ScotlVectorDescriptor": "descriptors.element_properties",
    "TransferabilityEstimator": "estimators.base",
    "get_descriptor": "descriptors.composite",
    # Sources by the thousand.
    "Described": "descriptors.described",
    "Embeddings": "bridges.embedding",
    "embed_by_encoder": "bridges.embedding",
    "rank_many": "ranking.many",
}

__all__ = [
    "ACTIVATIONS",
    "SYMBOLS",
    "TOLERANCE",
    "AtomValues",
    "Bridge",
    "CompositionDescriptor",
    "CompositionEncoder",
    "Compositions",
    "Corpus",
    "Crystal",
    "CrystalGraph",
    "Described",
    "Embeddings",
    "Encoded",
    "GraphBatch",
    "GraphEncoder",
    "IncompatibleWeightsError",
    "InputError",
    "Network",
    "NetworkEncoder",
    "PotentialEncoder",
    "ScotlMatglWarning",
    "ScotlVectorDescriptor",
    "SourceCard",
    "SourceEncoder",
    "TransferabilityEstimator",
    "as_crystal",
    "batch_graphs",
    "build_graph",
    "embed_by_encoder",
    "encode_crystals",
    "file_sha256",
    "get_descriptor",
    "home",
    "layer_widths",
    "load_element_tables",
    "merge_equal",
    "packaged_weights",
    "parse_compositions",
    "rank_many",
    "read_cards",
    "read_crystals",
    "read_published",
    "reference_crystals",
    "select",
    "write_whole",
]

if TYPE_CHECKING:
    from scotl_matgl.bridges.base import Bridge
    from scotl_matgl.bridges.embedding import Embeddings, embed_by_encoder
    from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
    from scotl_matgl.chemistry.corpus import Corpus
    from scotl_matgl.chemistry.crystal_files import read_crystals
    from scotl_matgl.chemistry.crystals import Crystal, as_crystal
    from scotl_matgl.chemistry.elements import SYMBOLS
    from scotl_matgl.descriptors.base import CompositionDescriptor
    from scotl_matgl.descriptors.composite import get_descriptor
    from scotl_matgl.descriptors.described import Described
    from scotl_matgl.descriptors.element_properties import ScotlVectorDescriptor
    from scotl_matgl.descriptors.element_tables import load_element_tables
    from scotl_matgl.encoders.base import GraphEncoder, encode_crystals
    from scotl_matgl.encoders.composition import NetworkEncoder
    from scotl_matgl.encoders.contracts import CompositionEncoder, Encoded, SourceEncoder
    from scotl_matgl.encoders.graphs import CrystalGraph, GraphBatch, batch_graphs, build_graph, merge_equal
    from scotl_matgl.encoders.network import ACTIVATIONS, Network, layer_widths
    from scotl_matgl.encoders.potentials import AtomValues, PotentialEncoder, packaged_weights
    from scotl_matgl.encoders.probes import TOLERANCE, IncompatibleWeightsError, reference_crystals
    from scotl_matgl.encoders.published import read_published
    from scotl_matgl.estimators.base import TransferabilityEstimator
    from scotl_matgl.exceptions import InputError, ScotlMatglWarning
    from scotl_matgl.ranking.many import rank_many
    from scotl_matgl.sources.cards import SourceCard, read_cards, select
    from scotl_matgl.storage import file_sha256, home, write_whole


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"scotl_matgl.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """Names for authors, imported or not."""
    return sorted(__all__)
