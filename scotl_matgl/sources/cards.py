"""Source cards: what is known of a pretrained model, validated, and how cards are searched."""

from __future__ import annotations

import builtins
import dataclasses
import difflib
import fnmatch
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scotl_matgl import registry
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.exceptions import InputError, PluginWarning, warn
from scotl_matgl.sources.apart import list_zoo
from scotl_matgl.vocabulary import visible

#: Version of the JSON form; raised when a field changes its meaning.
SCHEMA_VERSION = 1

MODALITIES = ("structure", "composition")

#: Loaders that a card may name that comes from a file: those of this package. A loader is code that is run.
FILE_LOADERS = frozenset(
    {
        "scotl_matgl.encoders.attention:load",
        "scotl_matgl.encoders.composition:load",
        "scotl_matgl.encoders.elements:load",
        "scotl_matgl.encoders.matgl:load",
    }
)

#: Characters of a text, items of a list or mapping, and levels of options that a card may have.
MAX_TEXT, MAX_ITEMS, MAX_LEVELS = 20_000, 1_000, 20

#: Words that stand for many sources, see :func:`select`.
GROUPS = ("all", "calculated")

#: Bytes of a file of cards.
MAX_FILE_BYTES = 64 << 20

_REQUIRED_TEXT = ("name", "zoo", "property", "unit", "dataset", "architecture", "loader", "licence", "citation")

# Names of sources and layers become parts of file names, where a slash, a wildcard or the separator "--" does harm.
_NAME = re.compile(r"(?!.*--)[^\W_][\w.+,=()-]*(?: [\w.+,=()-]+)*")


class CardError(ValueError):
    """A source card does not follow the schema; the message names the card, the field and the remedy."""


@dataclass(frozen=True, kw_only=True)
class SourceCard:
    """What is known of one source model.

    Attributes
    ----------
    name : str
        Unique name, e.g. ``"MEGNet-MP-2018.6.1-Eform"``: letters, digits, ``. _ + , = ( ) -`` and single spaces, but
        not ``--``, because files are named after it.
    zoo : str
        Collection that it belongs to, e.g. ``"matgl"``.
    modality : {"structure", "composition"}
        What the model reads. A structure model needs a bridge; a composition model embeds formulas itself.
    property, unit : str
        What it was trained to predict, and in which unit (``"1"`` if there is none).
    dataset : str
        What it was trained on.
    architecture : str
        Kind of network, e.g. ``"MEGNet"``.
    layers : mapping of str to int
        Layers that can be tapped, ``"readout"`` first, with the width of each; named by the rules of `name`.
    loader : str
        ``"module:function"``, imported only when the model is needed; called with the card, returns its encoder.
    licence : str
        Licence of the weights, or what is known of it.
    citation : str
        What to cite.
    options : mapping
        What the loader needs to know, e.g. ``{"directory": "MEGNet-MP-2018.6.1-Eform", "state": 0}``; values that JSON
        can hold.
    weights : mapping of str to str
        File name to sha256, so that a changed file is detected.
    probes : mapping of str to float
        Output of the model on the named reference crystals (see :mod:`scotl_matgl.encoders.probes`).
    parameters, n_train : int, optional
        Number of trainable parameters; number of training crystals.
    error : float, optional
        Error that its authors report on held-out data, mean absolute, in `error_unit`.
    error_unit : str
        Unit of `error`.
    elements : tuple of str
        Elements that the model knows; empty if it takes all.
    notes : str
        What a user should know before trusting it.
    trained_on_experiment : bool
        Whether measured values were among what it learned: its gain on such a property is then none of transfer.
    training_sets : tuple of str
        Sets of :func:`~scotl_matgl.sources.seen.training_formulas` with the formulas that it was trained on; empty
        where these are not known.
    """

    name: str
    zoo: str
    modality: str
    property: str
    unit: str
    dataset: str
    architecture: str
    layers: Mapping[str, int]
    loader: str
    licence: str
    citation: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    probes: Mapping[str, float] = field(default_factory=dict)
    parameters: int | None = None
    n_train: int | None = None
    error: float | None = None
    error_unit: str = ""
    elements: tuple[str, ...] = ()
    notes: str = ""
    trained_on_experiment: bool = False
    training_sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate, and make the mappings read-only."""
        self._check_texts()
        self._check_mappings()
        self._check_layers()
        self._check_files()
        self._check_numbers()
        self._check_options()
        elements: Any = self.elements
        if not isinstance(elements, list | tuple) or not all(symbol in SYMBOLS for symbol in elements):
            raise self._wrong(f"elements are {elements!r}; they must be a list of element symbols")
        for key in ("options", "weights", "probes", "layers"):
            object.__setattr__(self, key, MappingProxyType(dict(getattr(self, key))))
        object.__setattr__(self, "elements", tuple(elements))
        self._check_training()

    def _check_training(self) -> None:
        if not isinstance(self.trained_on_experiment, bool):
            raise self._wrong(f"trained_on_experiment is {self.trained_on_experiment!r}; it must be true or false")
        sets: Any = self.training_sets
        if not isinstance(sets, list | tuple) or not all(isinstance(name, str) for name in sets):
            raise self._wrong(f"training_sets are {sets!r}; they must be a list of names")
        object.__setattr__(self, "training_sets", tuple(sets))

    def _repr_html_(self) -> str:
        from scotl_matgl.views import Column, table

        told = {key: value for key, value in self.to_dict().items() if value not in ("", None, {}, [])}
        if self.elements:
            told["elements"] = f"{len(self.elements)}: {' '.join(self.elements)}"
        texts = [
            ", ".join(f"{name} {inner}" for name, inner in value.items()) if isinstance(value, dict) else str(value)
            for value in told.values()
        ]
        what = [key.replace("_", " ") for key in told]
        return table([Column("field", what), Column(self.name, texts)], header="field", caption=f"source {self.name}")

    def _wrong(self, what: str) -> CardError:
        return CardError(f"source card {self.name!r}: {what}")

    def _check_texts(self) -> None:
        for key in _REQUIRED_TEXT:
            value = getattr(self, key)
            if not isinstance(value, str) or not value.strip():
                raise self._wrong(f"{key} is {value!r}; it must be a text that is not empty")
            if len(value) > MAX_TEXT:
                raise self._wrong(f"{key} has {len(value)} characters; allowed are {MAX_TEXT}")
            if visible(value) != value:
                raise self._wrong(f"{key} holds control characters: {visible(value)}")
        for key in ("error_unit", "notes"):
            value = getattr(self, key)
            if not isinstance(value, str) or len(value) > MAX_TEXT or visible(value) != value:
                raise self._wrong(f"{key} must be a text of at most {MAX_TEXT} characters, without control characters")
        if self.modality not in MODALITIES:
            raise self._wrong(f"modality is {self.modality!r}; it must be one of {', '.join(MODALITIES)}")
        if self.loader.count(":") != 1 or not all(self.loader.split(":")):
            raise self._wrong(f"loader is {self.loader!r}; it must read 'module:function'")

    def _check_mappings(self) -> None:
        for key in ("layers", "options", "weights", "probes"):
            value = getattr(self, key)
            if isinstance(value, Mapping) and len(value) > MAX_ITEMS:
                raise self._wrong(f"{key} has {len(value)} items; allowed are {MAX_ITEMS}")
            if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value):
                raise self._wrong(f"{key} is {value!r}; it must be a mapping whose keys are texts")

    def _check_layers(self) -> None:
        for what, text in (("name is", self.name), *(("a layer is named", layer) for layer in self.layers)):
            if _NAME.fullmatch(text) is None:
                raise self._wrong(
                    f"{what} {text!r}; it must begin with a letter or digit and hold only letters, digits, "
                    "'._+,=()-' and single spaces, and no '--', because files are named after it"
                )
        if not self.layers or next(iter(self.layers)) != "readout":
            raise self._wrong(f"layers are {list(self.layers)}; 'readout' must be the first")
        for layer, width in self.layers.items():
            if not _is_count(width):
                raise self._wrong(f"layer {layer!r} has width {width!r}; it must be a positive integer")

    def _check_files(self) -> None:
        for file, digest in self.weights.items():
            if not all(map(is_file_name, file.split("/"))):
                raise self._wrong(
                    f"its weights are in {file!r}; that must be the name of a file, or of one below its folder"
                )
            if not isinstance(digest, str) or re.fullmatch("[0-9a-f]{64}", digest) is None:
                raise self._wrong(f"the sha256 of {file!r} is {digest!r}; it must be 64 hexadecimal digits")

    def _check_numbers(self) -> None:
        for crystal, value in self.probes.items():
            if not _is_number(value):
                raise self._wrong(f"the probe {crystal!r} is {value!r}; it must be a finite number")
        for key in ("parameters", "n_train"):
            value = getattr(self, key)
            if value is not None and not _is_count(value):
                raise self._wrong(f"{key} is {value!r}; it must be a positive integer, or left out")
        if self.error is not None and not _is_number(self.error):
            raise self._wrong(f"error is {self.error!r}; it must be a finite number, or left out")

    def _check_options(self) -> None:
        try:
            json.dumps(dict(self.options), allow_nan=False)
        except RecursionError:
            raise self._wrong(f"options are nested too deeply; allowed are {MAX_LEVELS} levels") from None
        except (TypeError, ValueError) as error:
            raise self._wrong(f"options are {dict(self.options)!r}; JSON cannot hold them: {error}") from error
        if _levels(dict(self.options)) > MAX_LEVELS:
            raise self._wrong(f"options are nested too deeply; allowed are {MAX_LEVELS} levels")

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled, and cards travel to the workers of joblib. A pickle runs what it says
        # anyway, so that the loader is not asked about here.
        return (_of_fields, (type(self), self.to_dict()))

    def __getstate__(self) -> dict[str, Any]:
        """Plain values, for what stores objects without pickle."""
        return self.to_dict()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take stored values as those of a file: they are validated, and may name no loader of their own."""
        listed = {card.loader for card in all_cards(lambda *_: None) if card.name == state.get("name")}
        card = type(self).from_dict(state, loaders=FILE_LOADERS | listed)
        self.__dict__.update(card.__dict__)

    def __hash__(self) -> int:
        return hash((self.zoo, self.name))

    @builtins.property  # the field `property` hides the built-in here
    def width(self) -> int:
        """Width of the ``readout`` layer."""
        return self.layers["readout"]

    def check_layer(self, layer: str) -> None:
        """Raise if there is no such layer.

        Raises
        ------
        InputError
            With the layers that there are, and the one that may be meant.
        """
        if layer not in self.layers:
            close = difflib.get_close_matches(str(layer), self.layers, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(f"{self.name} has no layer {layer!r}; {hint}it has {', '.join(self.layers)}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, loaders: Collection[str] | None = None) -> SourceCard:
        """Read the JSON form.

        Parameters
        ----------
        data : mapping
            Fields and values.
        loaders : collection of str, optional
            Loaders that it may name, ``"module:function"``. Without it any, which is for values of your own code: a
            loader is run, so what a file says must not choose it, see :func:`read_cards`.

        Raises
        ------
        CardError
            If a field is unknown, missing or wrong, or the schema is newer than this version understands.
        """
        if not isinstance(data, Mapping):
            raise CardError(f"a source card is a mapping of fields to values, not {data!r}")
        fields = dict(data)
        schema = fields.pop("schema", SCHEMA_VERSION)
        who = f"source card {fields.get('name', '?')!r}"
        if schema != SCHEMA_VERSION:
            raise CardError(f"{who}: schema {schema!r} is not {SCHEMA_VERSION}; install a version that understands it")
        known = {item.name: item for item in dataclasses.fields(cls)}
        for key in fields:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise CardError(f"{who}: unknown field {key!r}{hint}")
        missing = [
            key
            for key, item in known.items()
            if key not in fields and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise CardError(f"{who}: the fields {', '.join(missing)} are missing")
        if loaders is not None and fields["loader"] not in loaders:
            raise CardError(
                f"{who}: its loader is {fields['loader']!r}; a card of a file may name only "
                f"{', '.join(sorted(loaders))}, or what the code that reads it passes as loaders=[...]"
            )
        return cls(**fields)

    @classmethod
    def from_matgl(cls, model: Any, *, name: str, property: str, unit: str, **facts: Any) -> SourceCard:  # noqa: A002
        """Make a source of a model that was trained with MatGL, and keep it with the user's own sources.

        Layers and their widths, elements, number of parameters, hashes and reference outputs are computed. Card and
        weights are kept below ``SCOTL_MATGL_HOME``, so that :func:`all_cards` lists it from then on, and everything
        that takes a name of a source takes its name.

        Parameters
        ----------
        model : path, matgl model, or LightningModule of matgl
            A folder that MatGL's ``save`` wrote; a network in memory, also within a ``TransformedTargetModel``, a
            ``Potential``, or the module of Lightning that trained it, whose scaling of the target is kept; or a
            checkpoint of Lightning, together with `network`. Of MEGNet, M3GNet, TensorNet, SO3Net, CHGNet or QET.
        name : str
            Of the source.
        property, unit : str
            What it predicts, and in which unit; that of an extensive network is per atom.
        network : matgl model, or path, optional
            The network that a checkpoint of Lightning has the weights of, before or after training.
        matgl_version : int, optional
            Major version of MatGL that it was trained with, if that is another than the installed one.
        replace : bool, default=False
            Whether a source of this name that was added before is written over.
        dataset, licence, citation, notes : str, optional
            See the attributes; what is left out is "not stated".
        n_train, error, error_unit, options
            See the attributes; ``options={"state": 1}`` chooses one fidelity of a network of several.

        Returns
        -------
        SourceCard

        Raises
        ------
        CardError
            If the name is taken, or a fact is none that a card can hold.
        FileNotFoundError
            If there is no such folder or file.
        ValueError
            If the model is of another kind, its files hold more than weights and settings, or it is not read here as
            MatGL itself reads it, which is compared on the reference crystals.

        Notes
        -----
        Nothing in a file is executed. To rank it for formulas, build its bridge (``scotl-matgl bridge build``, or
        ``scotl-matgl zoo add --structures``); crystals it encodes as it is.

        Examples
        --------
        >>> card = SourceCard.from_matgl(model, name="My-MEGNet", property="band gap", unit="eV")  # doctest: +SKIP
        >>> TransferabilityRanker([card.name, "MEGNet*"]).fit(formulas, y)  # doctest: +SKIP
        """
        # As a loader, by its name: what knows models stands on what knows cards.
        make = registry.import_module("scotl_matgl.encoders.own").source_of_matgl
        made: SourceCard = make(model, name=name, property=property, unit=unit, **facts)
        return made

    @classmethod
    def from_callable(
        cls,
        function: Callable[[list[Any]], Any],
        *,
        name: str,
        property: str,  # noqa: A002
        unit: str,
        **facts: Any,
    ) -> SourceCard:
        """Make a source of a function from crystals, or formulas, to an array; for this process only.

        For a model that MatGL does not know, without a package of its own: pass the card as source. What is to be kept,
        and listed by name, is a plugin.

        Parameters
        ----------
        function : callable
            From a list of pymatgen structures, or of formulas, to an array (n, width), of numpy or torch.
        name : str
            Of the source.
        property, unit : str
            What the model was trained on, and in which unit.
        reads : {"crystals", "formulas"}, default="crystals"
            What it takes. A function of formulas is ranked at once; to rank one of crystals for formulas, give its card
            to :func:`~scotl_matgl.bridges.build.build_bridge` first.
        dataset, architecture, licence, citation, elements, notes, ...
            See the attributes; what is left out is "not stated".

        Returns
        -------
        SourceCard

        Raises
        ------
        InputError
            If the function fails on the four reference crystals, or returns another shape.

        Examples
        --------
        >>> import numpy as np
        >>> def model(formulas):
        ...     return np.array([[len(formula), formula.count("O")] for formula in formulas], float)
        >>> card = SourceCard.from_callable(model, name="Letters", property="none", unit="1", reads="formulas")
        >>> card.load().encode(["MgO", "NaCl"]).tolist()
        [[3.0, 1.0], [4.0, 0.0]]
        """
        make = registry.import_module("scotl_matgl.encoders.function").source_of_callable
        made: SourceCard = make(function, name=name, property=property, unit=unit, **facts)
        return made

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with the version of the schema."""
        values: dict[str, Any] = {"schema": SCHEMA_VERSION}
        for item in dataclasses.fields(SourceCard):  # what a subclass adds is no part of a card
            value = getattr(self, item.name)
            if isinstance(value, Mapping):
                value = dict(value)
            elif isinstance(value, tuple):
                value = list(value)
            values[item.name] = value
        return values

    def load(self, **options: Any) -> Any:
        """Load the encoder through the card's loader; keyword arguments are passed on.

        Raises
        ------
        CardError
            If the loader itself cannot be imported; what it raises when called is passed on.
        """
        return self.loader_function()(self, **options)

    def loader_function(self) -> Callable[..., Any]:
        """Import the loader, in limited time where it is a plugin's; see :meth:`load`."""
        module, _, function = self.loader.partition(":")
        try:
            loader: Callable[..., Any] = getattr(registry.import_module(module), function)
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            remedy = f"install the missing package {missing!r}" if missing else "correct the card or its plugin"
            raise CardError(
                f"source card {self.name!r}: its loader {self.loader!r} cannot be imported: "
                f"{type(error).__name__}: {error}; {remedy}"
            ) from error
        return loader


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _of_fields(kind: type[SourceCard], fields: Mapping[str, Any]) -> SourceCard:
    """Card of a pickle."""
    return kind.from_dict(fields)


def _levels(value: Any) -> int:
    """How many mappings and lists are inside each other."""
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    return 0 if inside is None else 1 + max(map(_levels, inside), default=0)


def is_file_name(name: Any) -> bool:
    """Whether a name is that of a file alone, on any system: no folder, no drive, no way up, no control character."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and len(name.encode("utf-8", "replace")) <= 255
        and not any(character in "/\\:" or ord(character) < 32 or ord(character) == 127 for character in name)
    )


def read_cards(path: str | Path, *, loaders: Collection[str] = FILE_LOADERS) -> list[SourceCard]:
    """Cards of a JSON file that holds one card or a list of them.

    Parameters
    ----------
    path : path
        The file.
    loaders : collection of str
        Loaders that its cards may name: a loader is run, so a file must not choose it freely. By default those of this
        package; a plugin that keeps its cards in a file names its own.

    Raises
    ------
    CardError
        If the file is not JSON, or a card in it does not follow the schema; the message names the file.
    """
    path = Path(path)
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise CardError(f"{path} has {path.stat().st_size} bytes; a file of cards may have {MAX_FILE_BYTES}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8, or nested without end
        raise CardError(f"{path} is not valid JSON: {error}") from error
    try:
        return [SourceCard.from_dict(item, loaders=loaders) for item in (data if isinstance(data, list) else [data])]
    except CardError as error:
        raise CardError(f"{path}: {error}") from error


def all_cards(failed: Callable[[str, str], None] | None = None) -> list[SourceCard]:
    """Cards of every registered zoo, sorted by zoo and name.

    A zoo that fails, or that lists a name a second time, costs one :class:`PluginWarning` and what it listed wrongly;
    the others are unaffected. The project's own zoos come first, so that no plugin can put its card in place of theirs.

    Parameters
    ----------
    failed : callable, optional
        Called with the zoo, or the card and its zoo, and the reason, instead of the warning.
    """

    def report(what: str, reason: str) -> None:
        if failed is not None:
            failed(what, reason)
        else:
            warn(f"{what}: {reason}", PluginWarning)

    cards: dict[str, SourceCard] = {}
    known = registry.entries("zoos")
    for zoo in sorted(known, key=lambda name: known[name].distribution != registry.OWN_DISTRIBUTION):
        origin = known[zoo].origin
        try:
            listed = list_zoo(known[zoo], SourceCard.from_dict)
        except registry.PluginError as error:
            report(f"zoo {zoo}", str(error))
            continue
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            report(f"zoo {zoo}", f"{origin} cannot list its cards: {type(error).__name__}: {error}")
            continue
        for card in listed:
            if isinstance(card, CardError):
                report(f"a card of zoo {zoo}", str(card))
            elif not isinstance(card, SourceCard):
                report(f"zoo {zoo}", f"{origin} lists a {type(card).__name__}, which is no SourceCard; it is ignored")
            elif card.name in cards:
                other = cards[card.name].zoo
                report(f"{card.name} (zoo {zoo})", f"{origin} lists a name that zoo {other!r} has; it is ignored")
            else:
                cards[card.name] = card
    return sorted(cards.values(), key=lambda card: (card.zoo, card.name))


def find(
    cards: Iterable[SourceCard],
    *,
    property: str | None = None,  # noqa: A002 - the field of the card has this name
    architecture: str | None = None,
    modality: str | None = None,
    dataset: str | None = None,
    zoo: str | None = None,
) -> list[SourceCard]:
    """Cards whose fields contain the given texts, whatever their capitals."""
    wanted = {
        key: value.lower()
        for key, value in {
            "property": property,
            "architecture": architecture,
            "modality": modality,
            "dataset": dataset,
            "zoo": zoo,
        }.items()
        if value is not None
    }
    return [card for card in cards if all(text in getattr(card, key).lower() for key, text in wanted.items())]


def no_sources(sources: Any) -> bool:
    """Whether a parameter `sources` names none: None, or an empty list."""
    return sources is None or (isinstance(sources, list | tuple) and len(sources) == 0)


def select(cards: Sequence[SourceCard], sources: str | SourceCard | Iterable[str | SourceCard]) -> list[SourceCard]:
    """Cards that a user asked for: ``"all"``, a name, a card, or several of these; ``*`` in a name matches anything.

    ``"calculated"`` are all but those that were trained on measured values. Capitals do not matter. Each card comes
    once, in the order in which it was asked for.

    Raises
    ------
    CardError
        If nothing has that name; the message says what is close to it.
    """
    wanted = [sources] if isinstance(sources, str | SourceCard) else list(sources)
    chosen: dict[str, SourceCard] = {}
    for item in wanted:
        if isinstance(item, SourceCard):
            chosen[item.name] = item
            continue
        if not isinstance(item, str):
            raise CardError(f"a source is asked for by its name or its card, not by {item!r}")
        pattern = "*" if item in GROUPS else item.lower()
        matches = [card for card in cards if fnmatch.fnmatchcase(card.name.lower(), pattern)]
        if item == "calculated":
            matches = [card for card in matches if not card.trained_on_experiment]
        if not matches and item not in GROUPS:
            names = [card.name for card in cards]
            by_lower = {name.lower(): name for name in names}
            part_of = [name for lower, name in by_lower.items() if item and item.lower() in lower]
            similar = difflib.get_close_matches(item.lower(), by_lower, n=3, cutoff=0.4)
            close = part_of[:3] or [by_lower[lower] for lower in similar]
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise CardError(f"There is no source {item!r}; {hint}`scotl-matgl zoo list` shows all {len(names)}")
        chosen.update({card.name: card for card in matches})
    return list(chosen.values())
