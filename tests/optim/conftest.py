"""Two libraries to compare with, and Triton's interpreter made fast enough for them."""

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import types

import numpy as np
import pytest
import torch

from tests.optim.cases import HAS_TRITON

KERNELS = {  # by the file that they are in
    "fused_kernels": ("count_steps", "lamb_advance", "lamb_apply", "lars_pass", "gradient_squares"),
    "fused_norm_kernels": ("gather_chunks", "trust_ratios"),
}


def kernel_files():
    """(module, name) of every kernel."""
    for file, names in KERNELS.items():
        module = importlib.import_module(f"bert_lamb.optim.{file}")
        yield from ((module, name) for name in names)


@pytest.fixture(scope="session", autouse=True)
def _interpreter():
    """Triton's interpreter, four times faster, and rounding to bf16 as a GPU does.

    As it is, it patches triton.language at every call of a function in a kernel, where once for each kernel is enough;
    it looks for overflow at every operation on integers, of which the kernels have none but addresses and indices; and
    it cuts float32 off where bf16 ends (test_optim_compile.py sees that the compiled kernels round).
    """
    if not HAS_TRITON or torch.cuda.is_available():
        yield
        return
    from triton.language import core
    from triton.runtime import interpreter

    function, builder = interpreter.InterpretedFunction, interpreter.interpreter_builder
    call, cast, options = function.__call__, interpreter.InterpreterBuilder.cast_impl, builder.options

    def call_in_patched_language(self, *arguments, **keywords):
        language = self.fn.__globals__.get("tl") or self.fn.__globals__["core"]
        if core.is_builtin(language.load):
            return call(self, *arguments, **keywords)
        return self.rewrite()(*arguments, **keywords)

    def rounding_cast(self, source, dtype):
        if (source.dtype.scalar, dtype.scalar) != (core.float32, core.bfloat16):
            return cast(self, source, dtype)
        rounded = torch.from_numpy(source.data.copy()).bfloat16().view(torch.int16).numpy()
        return interpreter.TensorHandle(rounded.view(np.uint16), dtype.scalar)

    function.__call__, interpreter.InterpreterBuilder.cast_impl = call_in_patched_language, rounding_cast
    builder.options = dataclasses.replace(options, sanitize_overflow=False)
    yield
    function.__call__, interpreter.InterpreterBuilder.cast_impl = call, cast
    builder.options = options


class RecordedKernel:
    """Stands where a kernel is: keeps (kernel, grid, arguments by name) of its launches and runs nothing."""

    def __init__(self, kernel, seen):
        self.kernel, self.seen = kernel, seen

    def __getitem__(self, grid):
        def launch(*arguments, **keywords):
            by_position = dict(zip(self.kernel.arg_names, arguments, strict=False))
            self.seen.append((self.kernel, grid, {**by_position, **keywords}))

        return launch


@contextlib.contextmanager
def recorded_launches():
    """The list that launches are added to while none of them runs."""
    from bert_lamb.optim import fused

    if torch.cuda.is_available():
        fused.why_no_launch(torch.device("cuda", torch.cuda.current_device()))  # the answer is kept: launched for real
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for module, name in kernel_files():
            patch.setattr(module, name, RecordedKernel(getattr(module, name), seen))
        yield seen


@pytest.fixture
def launches():
    with recorded_launches() as seen:
        yield seen


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 128 elements in blocks of 64, so that small tensors have whole chunks and rests."""
    pytest.importorskip("triton")
    from bert_lamb.optim import LayerwiseOptimizer
    from bert_lamb.optim.fused_tables import Tiling

    monkeypatch.setattr(LayerwiseOptimizer, "tiling", Tiling(block=64, num_warps=1, chunks=(128,)))


@pytest.fixture(scope="module")
def timm_lamb():
    """timm's Lamb without timm's models, which need torchvision."""
    specification = importlib.util.find_spec("timm")
    if specification is None:
        pytest.skip("timm is not installed (make test installs it)")
    root = next(iter(specification.submodule_search_locations))
    for name, path in (("timm", root), ("timm.optim", f"{root}/optim")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]
    yield importlib.import_module("timm.optim.lamb").Lamb
    for name in [name for name in sys.modules if name == "timm" or name.startswith("timm.")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def optax():
    """optax in float64."""
    pytest.importorskip("jax").config.update("jax_enable_x64", True)
    return pytest.importorskip("optax")
