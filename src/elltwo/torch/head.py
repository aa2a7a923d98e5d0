"""`exact_head`: the last linear layer of a PyTorch network in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from elltwo.data.base import Block
from elltwo.data.tensors import WITHOUT_FLOAT64, as_array
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

#: Every pass begins with this state of torch's random generator, so that a shuffled loader gives one order.
SEED = 0


def exact_head(
    backbone: Callable[..., Any],
    loader: Any,
    *,
    alpha: Any = "loo",
    head: torch.nn.Linear | None = None,
    task: str | None = None,
    loss: str | None = None,
    keys: Sequence[Any] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    fit_intercept: bool | None = None,
    standardize: bool = False,
    penalty: Any = None,
    alpha_per_target: bool = False,
    alpha_scale: str = "sum",
    tol: float = 1e-10,
    weights_are: str = "analytic",
) -> HeadFit:
    """Fit the last linear layer on the features of a frozen network: no learning rate, no epochs.

    With features xᵢ = backbone(inputᵢ) and the layer η = b + Wx, minimises over W and b

        Σᵢ wᵢ·‖yᵢ − ηᵢ‖² + α‖W‖²                  loss="squared": what `Ridge` and `RidgeClassifier` minimise
        Σᵢ wᵢ·logloss(yᵢ, ηᵢ) + (α/2)‖W‖²         loss="logistic": what `LogisticRegression` minimises

    and chooses α from the data by any rule. The features are computed batch by batch, in evaluation mode and
    without gradients, and never held at once; their products are made in float64 on the device where they
    are, whatever their own precision. The network runs over the data once, and for leave-one-out by squared
    error twice (`HeadFit.passes` says how often). The log-loss, which needs many steps, keeps the features in
    a temporary file of n × p numbers.

    Parameters
    ----------
    backbone : Module or callable
        Inputs of a batch → features (m, p); more dimensions than two are flattened to (m, p). A module is
        put into evaluation mode for the pass and then back into what each of its parts was in; a function
        around a module has to see to that itself.
    loader : DataLoader or other iterable
        Batches (inputs, targets) or (inputs, targets, weights), or dicts read by `keys`; read more than once.
        A shuffled loader is fine: each pass begins with the same state of torch's random generator, which
        afterwards is what it was.
    alpha : float, array, str or rule, default "loo"
        As of `Ridge`, on the sum scale: a number is used as it is; "loo", "kfold", "gcv", "reml", "aic",
        "bic" or a rule object chooses. K-fold with a number deals the rows to folds by a fixed shuffle, for
        classes each class apart. The log-loss has "loo", "kfold", "aic" and "bic".
    head : Linear, optional
        The layer to write into, in place, in its own dtype and on its own device. Otherwise a new one is
        made, with one output per class or target.
    task : {"regression", "classification"}, optional
        By default classification if the targets are whole numbers or booleans, one per row, or one-hot rows
        of them in the first batch. Floats, also 0., 1., 2., are a regression unless the task is given.
    loss : {"squared", "logistic"}, default "squared"
        Squared error fits ±1 to each class (as `RidgeClassifier`); the log-loss gives logits, for
        `CrossEntropyLoss` or, from one output, `BCEWithLogitsLoss`.
    keys : (inputs, targets) or (inputs, targets, weights), optional
        Keys of batches that are dicts. A tuple of keys as inputs: `backbone(**those)`.
    device : device, optional
        Where inputs are sent; by default where the module's parameters are. Of a callable: nowhere.
    dtype : dtype, optional
        Of a new layer; by default that of the module's parameters, or float32.
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
        NaN or infinite; if the passes are seen not to give the same rows; if the layer shares a parameter
        with the backbone. The layer is then as it was.

    Examples
    --------
    >>> import torch
    >>> from elltwo.torch import exact_head
    >>> rng = torch.Generator().manual_seed(0)
    >>> backbone = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh()).requires_grad_(False)
    >>> x = torch.randn(300, 4, generator=rng)
    >>> data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
    >>> result = exact_head(backbone, torch.utils.data.DataLoader(data, batch_size=64))
    >>> result.head, result.classes, result.passes
    (Linear(in_features=8, out_features=2, bias=True), (0, 1), 2)
    >>> bool((result.head(backbone(x)).argmax(1) == data.tensors[1]).float().mean() > 0.9)
    True

    References
    ----------
    Hoerl and Kennard (1970), "Ridge regression: biased estimation for nonorthogonal problems". Allen (1974),
    "The relationship between variable selection and data augmentation" (leave-one-out).
    """
    again(loader)
    if isinstance(loader, Dataset) and not isinstance(loader, Iterable):
        raise InputError(
            f"the loader is a {type(loader).__name__}, which gives single rows; batches are needed. Put it "
            "into a torch.utils.data.DataLoader(…, batch_size=256)."
        )
    shape = _head_shape(head, backbone)
    network = _Network(backbone, loader, keys, device)
    first = next(network.batches(), None)
    if first is None:
        raise InputError("the loader has no batches.")
    outputs = plan_outputs(
        first, network.targets(), task=task, loss=loss, units=None if shape is None else shape[0]
    )
    folds = outputs.squared and folds_of(alpha) is not None
    n_rows, codes = _counted(network, outputs.classes is not None) if folds else (None, None)
    source = TensorFeatures(
        network.batches, outputs, first, weights_are=weights_are, n_rows=n_rows, host=to_host
    )
    if shape is not None:
        check_layer(shape, source, "the layer")
    intercept = intercept_wanted(fit_intercept, None if head is None else head.bias is not None)
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
    if head is None:  # without random initial weights, which would move the caller's generator on
        place = network.device if network.device is not None else first.X.device
        kind = network.dtype if dtype is None else dtype
        shape = weight.shape[::-1]
        empty: Any = torch.nn.utils.skip_init
        head = empty(torch.nn.Linear, *shape, bias=intercept, device=place, dtype=kind)
    elif dtype is not None and dtype != head.weight.dtype:
        raise InputError(f"dtype={dtype} is for a new layer, and the one given is in {head.weight.dtype}.")
    write(head, weight, bias)
    return HeadFit(head, fit, outputs.task, outputs.classes, weight, bias, source.passes)


def write(head: torch.nn.Linear, weight: Array, bias: Array) -> None:
    """Write weight (outputs, p) and bias (outputs,) into a layer, in its dtype and on its device."""
    largest = float(torch.finfo(head.weight.dtype).max)
    check_fits_dtype((weight, bias), largest, str(head.weight.dtype).removeprefix("torch."))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        if head.bias is not None:
            head.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))


def to_host(values: torch.Tensor) -> Array:
    """Return a tensor of any dtype and device as a float64 array."""
    return np.asarray(values.detach().to("cpu", torch.float64).numpy())


class TensorFeatures(FeatureSource):
    """Features that stay on the device where the network made them."""

    def tensor_blocks(self) -> Iterator[Block]:
        """Iterate over the batches, features as float64 tensors on their device."""
        for X, y, weights, start in self.rows():
            beside = X.cpu() if X.device.type in WITHOUT_FLOAT64 else X
            with torch.autocast(beside.device.type, enabled=False):
                block = Block(beside.to(torch.float64), y, weights, start)
            yield block


class _Network:
    """A frozen network over a loader: features, targets and weights, batch by batch."""

    def __init__(self, backbone: Any, loader: Any, keys: Sequence[Any] | None, device: Any) -> None:
        self.backbone, self.loader, self.keys = backbone, loader, keys
        some = next(iter(backbone.parameters()), None) if isinstance(backbone, torch.nn.Module) else None
        self.device = torch.device(device) if device is not None else None if some is None else some.device
        floating = some is not None and some.dtype in (torch.float32, torch.float64)
        self.dtype = some.dtype if some is not None and floating else torch.float32

    def batches(self) -> Iterator[Batch]:
        """Yield the features, targets and weights of each batch."""
        with _evaluating(self.backbone):
            for number, (x, y, w) in enumerate(self._read()):
                features = self._features(x, number)
                yield Batch(features, _array(y), None if w is None else _array(w))

    def targets(self) -> Iterator[Array]:
        """Yield the targets of each batch; the network does not run."""
        for _, y, _ in self._read():
            yield _array(y)

    def _read(self) -> Iterator[tuple[Any, Any, Any]]:
        for batch in _same_draws(self.loader):
            yield unpack(batch, self.keys)

    def _features(self, x: Any, number: int) -> torch.Tensor:
        """Return the features of one batch, (m, p)."""
        x = _sent(x, self.device)
        with torch.no_grad():
            features = self.backbone(**x) if isinstance(x, dict) else self.backbone(x)
        if not isinstance(features, torch.Tensor):
            raise InputError(
                f"the backbone gives a {type(features).__name__} for batch {number}; features are one "
                "tensor. Wrap it in a function that picks them."
            )
        if features.ndim < 2 or features.is_complex():
            raise InputError(
                f"the backbone gives {features.dtype} of shape {tuple(features.shape)} for batch {number}; "
                "real features (rows, …) are needed."
            )
        return features.detach().flatten(1)


@contextmanager
def _evaluating(backbone: Any) -> Iterator[None]:
    """Put every part of a module into evaluation mode, and then back into the mode it was in."""
    parts = list(backbone.modules()) if isinstance(backbone, torch.nn.Module) else []
    before = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, before, strict=True):
            part.training = training


def _same_draws(loader: Any) -> Iterator[Any]:
    """Yield the batches of one pass, each pass with the same random draws and none of them the caller's."""
    own = torch.Generator().manual_seed(SEED).get_state()
    generators = _generators(loader)
    before = [g.get_state() for g in generators]
    batches, end = None, object()
    try:
        while True:
            outside = torch.get_rng_state()
            torch.set_rng_state(own)
            try:
                batches = iter(loader) if batches is None else batches
                batch = next(batches, end)
            finally:
                own = torch.get_rng_state()
                torch.set_rng_state(outside)
            if batch is end:
                return
            yield batch
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _generators(loader: Any) -> list[torch.Generator]:
    """Return the generators of a loader and its samplers, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    holders = (loader, *samplers)
    found = {id(g): g for h in holders if isinstance(g := getattr(h, "generator", None), torch.Generator)}
    return list(found.values())


def _sent(x: Any, device: torch.device | None) -> Any:
    """Return inputs on a device; arrays become tensors."""
    if isinstance(x, dict):
        return {name: _sent(value, device) for name, value in x.items()}
    if isinstance(x, (tuple, list)):
        return type(x)(_sent(value, device) for value in x)
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x)
    return x.to(device) if isinstance(x, torch.Tensor) and device is not None else x


def _array(values: Any) -> Array:
    """Return targets or weights of a batch as an array, their kind of number kept."""
    return np.asarray(as_array(values))


def _counted(network: _Network, classes: bool) -> tuple[int, Array | None]:
    """Return the number of rows and, for classes, the class of each: a pass without the network."""
    targets = list(network.targets())
    codes = np.concatenate([as_labels(y, i) for i, y in enumerate(targets)]) if classes else None
    return sum(len(y) for y in targets), codes


def _refuse_tied(own: dict[str, torch.nn.Parameter], backbone: torch.nn.Module) -> None:
    """Raise InputError if writing a parameter of the head would change what the backbone computes with."""
    for held, tensor in chain(backbone.named_parameters(), backbone.named_buffers()):
        for name, parameter in own.items():
            if _overlap(parameter, tensor):
                raise InputError(
                    f"'{name}' of head is shared with '{held}' of the backbone, so that writing it would "
                    "change the features that it is fitted on. Give a head with parameters of its own, such "
                    "as a copy (copy.deepcopy(head)), or none for a new one."
                )


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold some of their numbers in the same memory."""
    if a is b:
        return True
    if torch.nn.parameter.is_lazy(b) or b.layout != torch.strided or a.device != b.device:
        return False
    (a_start, a_end), (b_start, b_end) = _memory(a), _memory(b)
    return a_start > 0 and a_start < b_end and b_start < a_end


def _memory(values: torch.Tensor) -> tuple[int, int]:
    """Return the first address of a tensor's numbers, and that behind the last."""
    start = values.data_ptr()
    if not values.numel():
        return start, start
    last = sum((size - 1) * stride for size, stride in zip(values.shape, values.stride(), strict=True))
    return start, start + (last + 1) * values.element_size()


def _head_shape(head: Any, backbone: Any) -> tuple[int, int] | None:
    """Return (outputs, features) of a layer that can be written into, None if there is none."""
    if head is None:
        return None
    if not isinstance(head, torch.nn.Linear):
        raise InputError(f"head is a {type(head).__name__}; give a torch.nn.Linear, or None for a new one.")
    if isinstance(head.weight, torch.nn.parameter.UninitializedParameter):
        raise InputError("head is lazy and has no weights yet; run a batch through it, or leave out head=.")
    own = dict(head.named_parameters(recurse=False))
    if "weight" not in own:
        raise InputError(
            "the weight of head is computed from other parameters (a parametrisation), so that it cannot be "
            "written. Remove it first (torch.nn.utils.parametrize.remove_parametrizations)."
        )
    if not isinstance(backbone, torch.nn.Module):
        return head.out_features, head.in_features
    if any(part is head for part in backbone.modules()):
        raise InputError(
            "head is a part of the backbone, whose output would then be taken for features. Put "
            "torch.nn.Identity() in its place for the fit."
        )
    _refuse_tied(own, backbone)
    return head.out_features, head.in_features
