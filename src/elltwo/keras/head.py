"""`exact_head`: the last Dense layer of a Keras model in closed form, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.heads import (
    Batch,
    FeatureSource,
    HeadFit,
    again,
    as_labels,
    check_fits_dtype,
    check_layer,
    fit_head,
    folds_of,
    intercept_wanted,
    plan_outputs,
    unpack,
)

Array = npt.NDArray[Any]

#: Activations whose inputs are the logits that the log-loss finds, by the least number of outputs.
LOGIT_ACTIVATIONS = {"sigmoid": 1, "softmax": 2}


def exact_head(
    backbone: Callable[..., Any],
    dataset: Any,
    *,
    alpha: Any = "loo",
    head: keras.layers.Dense | None = None,
    task: str | None = None,
    loss: str | None = None,
    keys: Sequence[Any] | None = None,
    batch_size: int = 256,
    dtype: str | None = None,
    fit_intercept: bool | None = None,
    standardize: bool = False,
    penalty: Any = None,
    alpha_per_target: bool = False,
    alpha_scale: str = "sum",
    tol: float = 1e-10,
    weights_are: str = "analytic",
) -> HeadFit:
    """Fit the last Dense layer on the features of a frozen model: no learning rate, no epochs.

    With features xᵢ = backbone(inputᵢ) and the layer η = b + Wx, minimises over W and b

        Σᵢ wᵢ·‖yᵢ − ηᵢ‖² + α‖W‖²                  loss="squared": what `Ridge` and `RidgeClassifier` minimise
        Σᵢ wᵢ·logloss(yᵢ, ηᵢ) + (α/2)‖W‖²         loss="logistic": what `LogisticRegression` minimises

    and chooses α from the data by any rule. The features are computed batch by batch, as in inference, and
    never held at once; their products are made in float64 on the CPU, whatever their own precision. The model
    runs over the data once, and for leave-one-out by squared error twice (`HeadFit.passes` says how often).
    The log-loss, which needs many steps, keeps the features in a temporary file of n × p numbers.

    Parameters
    ----------
    backbone : keras.Model or callable
        Inputs of a batch → features (m, p); more dimensions than two are flattened to (m, p).
    dataset : (x, y) or (x, y, weights) of arrays, PyDataset, tf.data.Dataset, or other iterable of batches
        Batches (inputs, targets) or (inputs, targets, weights), or dicts read by `keys`; read more than once,
        and in the same order each time. A tuple of arrays is cut into batches.
    alpha : float, array, str or rule, default "loo"
        As of `Ridge`, on the sum scale: a number is used as it is; "loo", "kfold", "gcv", "reml", "aic",
        "bic" or a rule object chooses. K-fold with a number deals the rows to folds by a fixed shuffle, for
        classes each class apart. The log-loss has "loo", "kfold", "aic" and "bic".
    head : keras.layers.Dense, optional
        The layer to write into, in place and in its own dtype; it is built if it is not yet. Otherwise a new
        one is made, with one output per class or target. Its activation must be linear, but for the log-loss
        it may be the softmax, or of one output the sigmoid.
    task : {"regression", "classification"}, optional
        By default classification if the targets are whole numbers or booleans, one per row, or one-hot rows
        of them in the first batch. Floats, also 0., 1., 2., are a regression unless the task is given.
    loss : {"squared", "logistic"}, default "squared"
        Squared error fits ±1 to each class (as `RidgeClassifier`); the log-loss gives logits.
    keys : (inputs, targets) or (inputs, targets, weights), optional
        Keys of batches that are dicts. A tuple of keys as inputs gives the backbone a dict of them.
    batch_size : int, default 256
        Rows of a batch that arrays are cut into.
    dtype : str, optional
        Of a new layer; by default Keras's own.
    fit_intercept : bool, optional
        Whether b is free (it is never penalised); by default whether the layer has a bias.
    standardize, penalty, alpha_per_target, alpha_scale, tol, weights_are
        As of `Ridge`.

    Returns
    -------
    HeadFit
        `.head`, `.fit` (alpha, path, certificate, summary), `.classes`, `.passes`.

    Raises
    ------
    InputError
        If a batch, a label or the layer does not fit, naming batch and row (counted from 0); if features are
        NaN or infinite; if the passes are seen not to give the same rows; if the layer shares a weight with
        the backbone. The layer's weights are then as they were.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from elltwo.keras import exact_head
    >>> inputs = keras.Input((4,))
    >>> backbone = keras.Model(inputs, keras.layers.Dense(8, "tanh", kernel_initializer="orthogonal")(inputs))
    >>> x = np.random.default_rng(0).normal(size=(300, 4)).astype("float32")
    >>> result = exact_head(backbone, (x, x @ [1.0, 2.0, 0.0, 0.0]))
    >>> result.head.kernel.shape, result.task, result.passes
    ((8, 1), 'regression', 2)

    References
    ----------
    Hoerl and Kennard (1970), "Ridge regression: biased estimation for nonorthogonal problems". Allen (1974),
    "The relationship between variable selection and data augmentation" (leave-one-out).
    """
    batches = _Batches(backbone, _batched(dataset, batch_size), keys)
    shape = _checked(head, backbone)
    first = next(batches.features(), None)
    if first is None:
        raise InputError("the dataset has no batches.")
    outputs = plan_outputs(
        first, batches.targets(), task=task, loss=loss, units=None if head is None else head.units
    )
    _check_activation(head, outputs.squared)
    folds = outputs.squared and folds_of(alpha) is not None
    n_rows, codes = batches.counted(outputs.classes is not None) if folds else (None, None)
    source = FeatureSource(batches.features, outputs, first, weights_are=weights_are, n_rows=n_rows)
    if shape is not None:
        check_layer(shape, source, "the layer")
    intercept = intercept_wanted(fit_intercept, None if head is None else head.use_bias)
    fit, weight, bias = fit_head(
        source,
        alpha,
        codes=codes,
        fit_intercept=intercept,
        standardize=standardize,
        penalty=penalty,
        alpha_per_target=alpha_per_target,
        alpha_scale=alpha_scale,
        tol=tol,
    )
    if head is None:
        head = keras.layers.Dense(len(bias), use_bias=intercept, dtype=dtype)
    elif dtype is not None:
        raise InputError(f"dtype={dtype!r} is for a new layer, and one is given. Leave it out.")
    _write(head, weight, bias, backbone)
    return HeadFit(head, fit, outputs.task, outputs.classes, weight, bias, source.passes)


def _write(head: Any, weight: Array, bias: Array, backbone: Any) -> None:
    """Write weight (outputs, p) and bias (outputs,) into a layer, in its dtype."""
    kind = keras.backend.standardize_dtype(head.variable_dtype)
    largest = {"float16": 65504.0, "float64": float(np.finfo(np.float64).max)}
    check_fits_dtype((weight, bias), largest.get(kind, float(np.finfo(np.float32).max)), kind)
    if not head.built:
        head.build((None, weight.shape[1]))
        _refuse_tied(head, backbone)
    head.kernel.assign(np.ascontiguousarray(weight.T))
    if head.use_bias:
        head.bias.assign(bias)


class _Batches:
    """A frozen model over batches: features, targets and weights as arrays."""

    def __init__(self, backbone: Any, batches: Iterable[Any], keys: Sequence[Any] | None) -> None:
        self.backbone, self.batches, self.keys = backbone, batches, keys

    def features(self) -> Iterator[Batch]:
        """Yield the features, targets and weights of each batch."""
        for number, (x, y, w) in enumerate(self._read()):
            values = self._run(x)
            if isinstance(values, (dict, list, tuple)):
                raise InputError(
                    f"the backbone gives a {type(values).__name__} for batch {number}; features are one "
                    "tensor. Wrap it in a function that picks them."
                )
            X = _array(values)
            if X.ndim < 2:
                raise InputError(
                    f"the backbone gives the shape {X.shape} for batch {number}; features (rows, …) are "
                    "needed."
                )
            yield Batch(X.reshape(len(X), -1), _array(y), None if w is None else _array(w))

    def targets(self) -> Iterator[Array]:
        """Yield the targets of each batch; the model does not run."""
        for _, y, _ in self._read():
            yield _array(y)

    def counted(self, classes: bool) -> tuple[int, Array | None]:
        """Return the number of rows and, for classes, the class of each: a pass without the model."""
        targets = list(self.targets())
        codes = np.concatenate([as_labels(y, i) for i, y in enumerate(targets)]) if classes else None
        return sum(len(y) for y in targets), codes

    def _read(self) -> Iterator[tuple[Any, Any, Any]]:
        for batch in self.batches:
            yield unpack(batch, self.keys)

    def _run(self, x: Any) -> Any:
        """Return the features of one batch as in inference."""
        if isinstance(self.backbone, keras.Model):
            return self.backbone.predict_on_batch(x)
        if isinstance(self.backbone, keras.layers.Layer):
            return self.backbone(x, training=False)
        return self.backbone(x)


class _Slices:
    """Arrays cut into batches of consecutive rows."""

    def __init__(self, arrays: Sequence[Any], size: int) -> None:
        self.arrays, self.size = arrays, size
        lengths = {len(a) for a in keras.tree.flatten(arrays[0])} | {len(a) for a in arrays[1:]}
        if len(lengths) != 1:
            told = ", ".join(str(n) for n in sorted(lengths))
            raise InputError(f"the arrays of the dataset have different numbers of rows: {told}.")
        (self.rows,) = lengths

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self.rows, self.size):
            rows = slice(start, start + self.size)
            yield tuple(keras.tree.map_structure(lambda a, rows=rows: a[rows], part) for part in self.arrays)


class _Indexed:
    """Batches of a PyDataset, by number: from 0 and in order, whatever its `on_epoch_end` does."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        if dataset.num_batches is None:
            raise InputError("the PyDataset has no end (num_batches is None); give one that ends.")

    def __iter__(self) -> Iterator[Any]:
        for i in range(self.dataset.num_batches):
            yield self.dataset[i]


def _batched(dataset: Any, batch_size: int) -> Iterable[Any]:
    """Return the batches of what Keras calls a dataset, as something that can be read again."""
    if isinstance(dataset, keras.utils.PyDataset):
        return _Indexed(dataset)
    if isinstance(dataset, tuple):
        if len(dataset) not in (2, 3):
            raise InputError(f"dataset is a tuple of {len(dataset)}; give (x, y) or (x, y, weights).")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size must be a whole number of at least 1; got {batch_size!r}.")
        arrays = [part if isinstance(part, dict) else _rows(part) for part in dataset if part is not None]
        return _Slices(arrays, batch_size)
    again(dataset)
    batches: Iterable[Any] = dataset
    return batches


def _rows(values: Any) -> Any:
    """Return rows that can be sliced: lists of numbers as an array."""
    return values if hasattr(values, "shape") else np.asarray(values)


def _array(values: Any) -> Array:
    """Return a tensor of any backend as an array; what NumPy has not (bfloat16) as float32."""
    array = np.asarray(keras.ops.convert_to_numpy(values) if not isinstance(values, np.ndarray) else values)
    return array.astype(np.float32) if array.dtype.kind == "V" or str(array.dtype) == "bfloat16" else array


def _checked(head: Any, backbone: Any) -> tuple[int, int] | None:
    """Return (outputs, features) of a layer that can be written into; None if none is given or built."""
    if head is None:
        return None
    if not isinstance(head, keras.layers.Dense):
        raise InputError(f"head is a {type(head).__name__}; give a layers.Dense, or None for a new one.")
    if getattr(head, "lora_enabled", False) or getattr(head, "quantization_mode", None) is not None:
        raise InputError(
            "the kernel of head is computed from other weights (LoRA or quantised), so that it cannot be "
            "written. Give a plain Dense layer."
        )
    if isinstance(backbone, keras.layers.Layer) and any(
        part is head for part in backbone._flatten_layers(include_self=True)
    ):
        raise InputError(
            "head is a layer of the backbone, whose output would then be taken for features. Give as "
            "backbone keras.Model(model.inputs, head.input)."
        )
    if not head.built:
        return None
    _refuse_tied(head, backbone)
    return head.units, int(head.kernel.shape[0])


def _refuse_tied(head: Any, backbone: Any) -> None:
    """Raise InputError if writing a weight of the head would change what the backbone computes with."""
    if not isinstance(backbone, keras.layers.Layer):
        return
    held = {id(variable) for variable in backbone.variables}
    for name in ("kernel", "bias"):
        if id(getattr(head, name, None)) in held:
            raise InputError(
                f"the {name} of head is shared with the backbone, so that writing it would change the "
                "features that it is fitted on. Give a Dense layer with weights of its own, or none for a "
                "new one."
            )


def _check_activation(head: Any, squared: bool) -> None:
    """Raise InputError unless the layer's activation goes with the loss."""
    if head is None:
        return
    name = getattr(head.activation, "__name__", str(head.activation))
    least = LOGIT_ACTIVATIONS.get(name)
    logits = not squared and least is not None and (head.units == 1) == (least == 1)
    if name != "linear" and not logits:
        raise InputError(
            f"head has the activation '{name}', but its output for {'squared' if squared else 'logistic'} "
            f"loss with {head.units} output(s) is the linear part itself. Use a linear activation"
            + ("." if not squared else ", or loss='logistic' for a softmax or sigmoid.")
        )
