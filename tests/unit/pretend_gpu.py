"""A GPU that is not there: tensors on ``cuda`` computed by the CPU, with a GPU's rules.

Code for ``cuda`` runs unchanged, ``torch.cuda`` included, and gives the CPU's numbers. Checked are
the devices of operands, pinned memory of copies that nothing waits for, and the order of work in
streams; counted are the operations for which the CPU waits for the GPU.
"""

import threading
from collections import Counter, defaultdict
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
# Their result, or its shape, is needed by the CPU.
WAITING = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"),
    *("aten::is_nonzero", "aten::_unique2", "aten::unique_consecutive", "torchvision::nms"),
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
COPIES = {"aten::copy_", "aten::_to_copy", "aten::to"}


class WrongOnGpuError(AssertionError):
    """What a GPU would refuse, or silently compute wrongly."""


class OnGpu(torch.Tensor):
    """A tensor that says that it is on the GPU; ``inner`` is on the CPU."""

    @staticmethod
    def __new__(cls, inner, _gpu):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=GPU,
        )

    def __init__(self, inner, gpu):
        self.inner = inner
        self.gpu = gpu

    def __repr__(self, **_):
        return f"OnGpu({self.inner!r})"

    def tolist(self):
        self.gpu.wait("tolist")
        return self.inner.tolist()

    def record_stream(self, stream):
        self.gpu.kept[key(self)].add(stream)

    @classmethod
    def __torch_dispatch__(cls, func, _types, args=(), kwargs=None):
        gpu = next(x.gpu for x in tree_leaves((args, kwargs)) if isinstance(x, OnGpu))
        return gpu.run(func, args, kwargs or {})


def key(tensor):
    return tensor.inner.untyped_storage()._cdata


class Stream:
    """Work in order. ``clock`` has the last operation of each stream that is done before its next.

    The default stream's work, such as loading weights, counts as done.
    """

    def __init__(self, _device=None, priority=0):
        self.priority = priority
        self.clock = Counter()

    def record(self):
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event):
        self.clock |= event.clock

    def wait_stream(self, other):
        self.wait_event(other.record())


class Event:
    def record(self, stream):
        self.clock = Counter(stream.clock)


class Gpu(TorchDispatchMode):
    """The pretended GPU.

    Attributes:
        waits: number of operations, by name, for which the CPU waited.
        streams: of which work was done, in order of the first.
    """

    def __init__(self):
        super().__init__()
        self.waits = Counter()
        self.default = Stream()
        self.streams = [self.default]
        self.local = threading.local()
        self.written = {}
        self.kept = defaultdict(set)

    def stream(self):
        return getattr(self.local, "stream", self.default)

    @contextmanager
    def within(self, stream):
        """``torch.cuda.stream``; the work of started threads is seen from here on."""
        before = self.stream()
        self.local.stream = stream
        with self:
            yield
        self.local.stream = before

    def wait(self, name):
        self.waits[name] += 1

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name
        if name in {"aten::pin_memory", "aten::_pin_memory"}:
            pinned = args[0].clone()
            pinned.is_pinned_here = True
            return pinned
        leaves = tree_leaves((args, kwargs))
        if any(isinstance(x, OnGpu) or _is_gpu(x) for x in leaves):
            return self.run(func, args, kwargs)
        return func(*args, **kwargs)

    def run(self, func, args, kwargs):
        leaves = tree_leaves((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        on_gpu = [x for x in tensors if isinstance(x, OnGpu)]
        self._check_devices(func, tensors, on_gpu)
        self._count(func, args, kwargs, leaves)
        self._check_order(on_gpu)
        if func._schema.name in {"aten::_softmax", "aten::_log_softmax"} and args[2]:
            # Of half precision at once: the CPU has no such operation.
            args = (args[0].float(), args[1], False)
        out = func(
            *tree_map(_to_cpu, args),
            **{k: _to_cpu_tree(v) for k, v in kwargs.items() if k != "pin_memory"},
        )
        if func._schema.name == "aten::copy_":
            if isinstance(args[0], OnGpu):
                self._mark([args[0]])
            return args[0]
        if _leaves_gpu(func, leaves, on_gpu):
            return out
        # A view of a tensor is of inference mode if that tensor is.
        inference = torch.is_inference_mode_enabled()
        if func.is_view and on_gpu:
            inference = on_gpu[0].is_inference()
        with torch.inference_mode(inference):
            wrapped = tree_map(lambda x: OnGpu(x, self) if isinstance(x, torch.Tensor) else x, out)
        new = [x for x in tree_leaves(wrapped) if isinstance(x, OnGpu)]
        if func._schema.name in COPIES and not on_gpu and not kwargs.get("non_blocking"):
            # The CPU has waited for the copy, and so has all that it starts from now on.
            for x in new:
                self.written.pop(key(x), None)
        elif not func.is_view:
            self._mark(new)
        if not on_gpu or func._schema.name in COPIES:
            return wrapped
        return return_and_correct_aliasing(func, args, kwargs, wrapped)

    def _check_devices(self, func, tensors, on_gpu):
        name = func._schema.name
        elsewhere = [x for x in tensors if not isinstance(x, OnGpu) and x.dim()]
        if on_gpu and elsewhere and name not in COPIES | INDEXING:
            raise WrongOnGpuError(f"{name}: tensors on cuda and on cpu")

    def _count(self, func, args, kwargs, leaves):
        name = func._schema.name
        if name in WAITING:
            self.wait(name)
        if name in INDEXING:
            masks = [x for x in args[1] if x is not None]
            if any(x.dtype == torch.bool or not isinstance(x, OnGpu) for x in masks):
                self.wait(name)
        if name not in COPIES:
            return
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        places = {isinstance(x, OnGpu) for x in tensors} | {
            _is_gpu(x) for x in leaves if isinstance(x, torch.device)
        }
        if places != {True, False}:
            return
        non_blocking = kwargs.get("non_blocking", False) or args[2:3] == (True,)
        source = tensors[-1]
        if not non_blocking:
            self.wait("to_cpu" if isinstance(source, OnGpu) else "to_gpu")
        elif not getattr(source, "is_pinned_here", False):
            raise WrongOnGpuError(f"{name}: non_blocking, but not from pinned memory")

    def _check_order(self, on_gpu):
        stream = self.stream()
        if stream not in self.streams:
            self.streams.append(stream)
        for x in on_gpu:
            writer, number = self.written.get(key(x), (stream, 0))
            if writer in (stream, self.default):
                continue
            if stream.clock[writer] < number:
                raise WrongOnGpuError("used in a stream that did not wait for it")
            if stream not in self.kept[key(x)]:
                raise WrongOnGpuError("used in a stream that its memory is not kept for")

    def _mark(self, tensors):
        stream = self.stream()
        stream.clock[stream] += 1
        for x in tensors:
            self.written[key(x)] = stream, stream.clock[stream]
            # The storage may be a new one at the same address.
            self.kept.pop(key(x), None)


def _is_gpu(x):
    return isinstance(x, torch.device) and x.type == "cuda"


def _to_cpu(x):
    return x.inner if isinstance(x, OnGpu) else torch.device("cpu") if _is_gpu(x) else x


def _to_cpu_tree(x):
    return tree_map(_to_cpu, x)


def _leaves_gpu(func, leaves, on_gpu):
    to_cpu = any(isinstance(x, torch.device) and x.type == "cpu" for x in leaves)
    return on_gpu and (to_cpu or func._schema.name == "aten::_local_scalar_dense")


@contextmanager
def pretended_gpu(monkeypatch, *, count=1, memory=80 * 2**30, capability=(8, 0)):
    """Give this process a GPU, and all work of this thread to it that names ``cuda``."""
    gpu = Gpu()
    # Without these calls torch looks for a driver, and replaces only the data of parameters.
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    cudnn = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False  # it has operations of its own

    class Properties:
        total_memory = memory

    for name, value in {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: count,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "synchronize": lambda *_: gpu.wait("synchronize"),
        "get_device_capability": lambda *_: capability,
        "get_device_properties": lambda *_: Properties,
        "manual_seed": lambda _: None,
        "Stream": Stream,
        "Event": Event,
        "stream": gpu.within,
        "current_stream": lambda *_: gpu.stream(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    try:
        with gpu:
            yield gpu
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.backends.cudnn.enabled = cudnn
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
