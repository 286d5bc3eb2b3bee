"""``@triton.autotune`` takes the first configuration that can run; ``@triton.heuristics`` computes arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from patcher.tiles.fit import Fit
from triton.runtime.errors import OutOfResources as OutOfResources
from triton.runtime.jit import KernelInterface


class Config:
    """One choice of meta-parameters.

    Attributes: the arguments, as given.
    """

    def __init__(
        self,
        kwargs: dict[str, Any],
        num_warps: int = 4,
        num_stages: int = 3,
        num_ctas: int = 1,
        maxnreg: int | None = None,
        pre_hook: Callable[..., Any] | None = None,
        ir_override: str | None = None,
    ) -> None:
        self.kwargs = kwargs
        self.num_warps = num_warps
        self.num_stages = num_stages
        self.num_ctas = num_ctas
        self.maxnreg = maxnreg
        self.pre_hook = pre_hook
        self.ir_override = ir_override

    def all_kwargs(self) -> dict[str, Any]:
        """The meta-parameters and the compiler options that are set."""
        options = ("num_warps", "num_stages", "num_ctas", "maxnreg", "ir_override")
        return {**self.kwargs, **{name: getattr(self, name) for name in options if getattr(self, name) is not None}}

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.all_kwargs().items())})"


class Autotuner(KernelInterface[Any]):
    """A kernel with the configurations that may be taken.

    Nothing is timed: on mps the first one whose shader can be made is taken, else the first whose program can, and kept
    for arguments of the same key.

    Attributes: the arguments, as given, and ``cache``, keys to configurations, and ``best_config``, the last one taken.
    """

    def __init__(
        self,
        fn: Any,
        arg_names: Sequence[str],
        configs: Sequence[Config],
        key: Sequence[str],
        reset_to_zero: Sequence[str] | None,
        restore_value: Sequence[str] | None,
        pre_hook: Callable[..., Any] | None = None,
        post_hook: Callable[..., Any] | None = None,
        prune_configs_by: Mapping[str, Any] | None = None,
        warmup: int | None = None,
        rep: int | None = None,
        use_cuda_graph: bool = False,
        do_bench: Callable[..., Any] | None = None,
        cache_results: bool = False,
    ) -> None:
        self.fn = fn
        self.arg_names = arg_names
        self.configs = list(configs) or [Config({})]
        self.keys = key
        self.reset_to_zero = list(reset_to_zero or [])
        self.restore_value = list(restore_value or [])
        self.pre_hook = pre_hook
        self.post_hook = post_hook
        self.user_defined_pre_hook = pre_hook is not None
        self.user_defined_post_hook = post_hook is not None
        self.prune_configs_by = prune_configs_by
        self.use_cuda_graph = use_cuda_graph
        self.cache: dict[Any, Config] = {}
        self.best_config: Config | None = None

    def run(self, *args: Any, grid: Any, warmup: bool = False, **kwargs: Any) -> Any:
        """Runs the kernel with the configuration for these arguments. Raises as the kernel does."""
        named = self.named(args, kwargs)
        config = self._configuration(args, kwargs, named, warmup)
        everything = {**kwargs, **config.all_kwargs()}
        if config.pre_hook is not None and not warmup:
            config.pre_hook({**named, **everything})
        return self.fn.run(*args, grid=grid, warmup=warmup, **everything)

    def fit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fit:
        """That of the best configuration."""
        return max(self.fn.fit(args, {**kwargs, **config.all_kwargs()}) for config in self.configs)

    def _configuration(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], named: dict[str, Any], warmup: bool
    ) -> Config:
        """The one for these arguments; kept by their key, but not in what torch traces, where it is looked for once."""
        from patcher.tiles import traced

        if traced.wanted():
            return self._first_that_fits(args, kwargs, named)
        key = self._key(named)
        if key not in self.cache:
            self.cache[key] = self._first_that_fits(args, kwargs, named)
            if not warmup and len(self.configs) > 1:
                self._reset(named)
        self.best_config = self.cache[key]
        return self.best_config

    def _key(self, named: dict[str, Any]) -> tuple[Any, ...]:
        """The numbers that the key names, and the types of all tensors."""
        types = tuple(str(value.dtype) for value in named.values() if hasattr(value, "dtype"))
        return *(named[n] for n in self.keys if n in named and not hasattr(named[n], "dtype")), types

    def _first_that_fits(self, args: tuple[Any, ...], kwargs: dict[str, Any], named: dict[str, Any]) -> Config:
        """The first that runs as it is asked for, else the first that runs, else the first, whose error tells why."""
        configs = self.configs
        prune = (self.prune_configs_by or {}).get("early_config_prune")
        if prune is not None:
            configs = prune(configs, named, **kwargs)
        if len(configs) == 1:
            return configs[0]
        best, most = configs[0], Fit.NOT_AT_ALL
        for config in configs:
            found = self.fn.fit(args, {**kwargs, **config.all_kwargs()})
            if found > most:
                best, most = config, found
            if most == Fit.AS_ASKED:
                break
        return best

    def _reset(self, named: dict[str, Any]) -> None:
        """What Triton does after it has timed configurations, before the run that counts."""
        if self.pre_hook is not None:
            self.pre_hook(named, reset_only=True)
            return
        for name in self.reset_to_zero:
            named[name].zero_()


class Heuristics(KernelInterface[Any]):
    """A kernel with functions that compute some of its arguments from the others. Attributes: as given."""

    def __init__(self, fn: Any, arg_names: Sequence[str], values: Mapping[str, Callable[..., Any]]) -> None:
        self.fn = fn
        self.arg_names = arg_names
        self.values = values

    def run(self, *args: Any, grid: Any, warmup: bool = False, **kwargs: Any) -> Any:
        """Runs the kernel with the arguments that the functions compute. Raises as the kernel does."""
        return self.fn.run(*args, grid=grid, warmup=warmup, **self._computed(args, kwargs))

    def fit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fit:
        """That of the kernel with the arguments that the functions compute."""
        return self.fn.fit(args, self._computed(args, kwargs))

    def _computed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        named = self.named(args, kwargs)
        computed = dict(kwargs)
        for name, value in self.values.items():
            computed[name] = named[name] = value(named)
        return computed


def autotune(
    configs: Sequence[Config],
    key: Sequence[str],
    prune_configs_by: Mapping[str, Any] | None = None,
    reset_to_zero: Sequence[str] | None = None,
    restore_value: Sequence[str] | None = None,
    pre_hook: Callable[..., Any] | None = None,
    post_hook: Callable[..., Any] | None = None,
    warmup: int | None = None,
    rep: int | None = None,
    use_cuda_graph: bool = False,
    do_bench: Callable[..., Any] | None = None,
    cache_results: bool = False,
) -> Callable[[Any], Autotuner]:
    """Decorates a kernel with configurations, of which the first that can run is taken."""

    def decorate(fn: Any) -> Autotuner:
        return Autotuner(
            fn,
            fn.arg_names,
            configs,
            key,
            reset_to_zero,
            restore_value,
            pre_hook=pre_hook,
            post_hook=post_hook,
            prune_configs_by=prune_configs_by,
        )

    return decorate


def heuristics(values: Mapping[str, Callable[..., Any]]) -> Callable[[Any], Heuristics]:
    """Decorates a kernel with functions that compute some of its arguments from the others."""

    def decorate(fn: Any) -> Heuristics:
        return Heuristics(fn, fn.arg_names, values)

    return decorate
