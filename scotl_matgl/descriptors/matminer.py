"""Any composition featurizer of matminer as a descriptor."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.descriptors.base import MATMINER_CITATION, CompositionDescriptor
from scotl_matgl.exceptions import ScotlMatglWarning, warn
from scotl_matgl.vocabulary import Floats


class MatminerDescriptor(CompositionDescriptor):
    """Any composition featurizer of matminer, by the name of its class.

    Parameters
    ----------
    featurizer : str
        Class in ``matminer.featurizers.composition``, for example ``"WenAlloys"``.
    parameters : mapping of str to object, optional
        Arguments of the class, or of its ``from_preset`` where ``"preset_name"`` is among them. ``impute_nan`` is
        True unless given: matminer's own default differs between versions.

    Attributes
    ----------
    featurizer_ : object
        matminer's featurizer.
    left_out_ : tuple of str
        Features that are text (``AtomicOrbitals`` has four), found on the formula Fe2O3; they are not among the
        features, and a warning names them.
    failed_rows_ : tuple of SkippedRow
        Rows of the last `transform` for which matminer raised an error, with that error; they are rows of NaN.

    Notes
    -----
    Formulas are converted to pymatgen's ``Composition`` without oxidation states, so featurizers that need them
    (``CationProperty``, ``OxidationStates``, ...) fail on every row. Rows are featurized one by one in this process:
    matminer's own pool starts a process for every ten rows. Cost: matminer's import, some seconds, and 0.1 to
    260 ms per formula.

    Examples
    --------
    >>> miedema = MatminerDescriptor("Miedema").fit(["TiZr"])
    >>> miedema.get_feature_names_out()[0]
    'Miedema_deltaH_inter'
    """

    def __init__(self, featurizer: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.featurizer = featurizer
        self.parameters = parameters

    def fit(self, formulas: Any, y: Any = None) -> Self:  # noqa: ARG002  (scikit-learn's signature)
        """Build matminer's featurizer.

        Parameters
        ----------
        formulas : ignored
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such featurizer, or it does not take the parameters.
        """
        from matminer.featurizers import composition as module
        from matminer.featurizers.base import BaseFeaturizer

        known: dict[str, Any] = {
            name: cls for name, cls in vars(module).items() if inspect.isclass(cls) and issubclass(cls, BaseFeaturizer)
        }
        if self.featurizer not in known:
            close = get_close_matches(str(self.featurizer), known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"matminer has no composition featurizer {self.featurizer!r}; {hint}It has {', '.join(sorted(known))}"
            )
        cls = known[self.featurizer]
        parameters = dict(self.parameters or {})
        build = cls.from_preset if "preset_name" in parameters else cls
        if "impute_nan" in inspect.signature(build).parameters:
            parameters.setdefault("impute_nan", True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of matminer's own pandas calls, for example
                self.featurizer_: Any = build(**parameters)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"matminer's {self.featurizer} cannot be built with parameters={self.parameters!r}: {error}; it takes "
                f"{inspect.signature(build)}"
            ) from error
        self._labels = [str(label) for label in self.featurizer_.feature_labels()]
        self._numeric = self._find_numeric()
        self.left_out_ = tuple(np.array(self._labels)[~self._numeric].tolist())
        if self.left_out_:
            warn(
                f"matminer's {self.featurizer} gives text in {', '.join(self.left_out_)}: these features are left out",
                ScotlMatglWarning,
            )
        self.failed_rows_: tuple[SkippedRow, ...] = ()
        return self

    def _find_numeric(self) -> NDArray[np.bool_]:
        try:
            values = self._featurize({"Fe": 2.0, "O": 3.0})
        except Exception:  # whatever a featurizer raises here, transform will meet again and report row by row
            return np.ones(len(self._labels), dtype=bool)
        return np.array([not isinstance(value, str) for value in values])

    def _featurize(self, amounts: dict[str, float]) -> list[Any]:
        from pymatgen.core.composition import Composition

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(self.featurizer_.featurize(Composition(amounts)))

    def _feature_names(self) -> list[str]:
        check_is_fitted(self)
        return [label for label, numeric in zip(self._labels, self._numeric, strict=True) if numeric]

    def _describe(self, compositions: Compositions) -> Floats:
        check_is_fitted(self)
        features = np.full((len(compositions), int(self._numeric.sum())), np.nan)
        failed = []
        for i in range(len(compositions)):
            numbers, amounts = compositions[i]
            formula = {SYMBOLS[z - 1]: amount for z, amount in zip(numbers.tolist(), amounts.tolist(), strict=True)}
            try:
                values = self._featurize(formula)
                features[i] = [float(value) for value, keep in zip(values, self._numeric, strict=True) if keep]
            except Exception as error:  # matminer raises anything: the row stays NaN and is listed
                row = int(compositions.rows[i])
                reason = f"matminer's {self.featurizer} failed: {type(error).__name__}: {error}"
                failed.append(SkippedRow(row, row, compositions.text[i], reason))
        self.failed_rows_ = tuple(failed)
        return features

    def _fingerprint_parts(self) -> Iterator[bytes]:
        parameters = json.dumps(dict(self.parameters or {}), sort_keys=True, default=repr)
        yield f"{self.featurizer} {parameters} {version('matminer')} {version('pymatgen')}".encode()

    def citations(self) -> list[str]:
        """Return the references that matminer's featurizer names, and matminer's own."""
        check_is_fitted(self)
        return [*map(str, self.featurizer_.citations()), MATMINER_CITATION]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        return tags
