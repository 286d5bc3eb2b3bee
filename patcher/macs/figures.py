"""What is known of each Apple silicon Mac's GPU and memory, each figure with its source. Data only.

How the figures are put together:

- GPU cores and memory sizes are those that Apple sells; a memory size stands with the GPU variants it is sold with.
- ``bandwidth`` is Apple's figure in GB/s (1e9 bytes); M1's is that of its memory, which Apple does not print.
- Peak rates are not published: they are ``cores x 128 lanes x 2 FLOP x clock`` (128 FP32 lanes per core, a fused
  multiply-add each cycle, SOURCES["lanes"]). With the clocks below they agree with what Apple did print (2.6 TFLOPS for
  M1, 10.4 for M1 Max, 13.6 for M2 Max) within 3 percent.
- FP16 runs at the rate of FP32 on M1 and M2 (SOURCES["lanes"]), and is taken to on M3 and M4; M5 has a matrix unit in
  each core, four times as fast (SOURCES["m5 matrix"]), which is what ``fp16_factor`` counts.
- ``estimated`` names the figures for which no measurement or statement was found, and what they rest on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TORCH: dict[str, str] = {"2.13": "2.13.0", "2.14": "2.14.1", "2.15": "2.15.0"}
"""The torch releases that a simulated Mac can have, oldest first: each with the version that was read."""

LANES = 128
"""FP32 lanes of a GPU core (SOURCES["lanes"])."""

SOURCES: dict[str, str] = {
    "lanes": "https://github.com/philipturner/metal-benchmarks (FP32 and FP16 per core and cycle, M1 and M2), "
    "https://en.wikipedia.org/wiki/Apple_silicon#Comparison_of_M_series_processors",
    "m1": "https://en.wikipedia.org/wiki/Apple_M1, https://support.apple.com/en-us/111902 (MacBook Pro 2021), "
    "https://support.apple.com/en-us/111900 (Mac Studio 2022)",
    "m2": "https://en.wikipedia.org/wiki/Apple_M2, https://support.apple.com/en-us/111340 (MacBook Pro 2023), "
    "https://support.apple.com/en-us/111835 (Mac Studio 2023)",
    "m3": "https://en.wikipedia.org/wiki/Apple_M3, https://support.apple.com/en-us/122211 (Mac Studio 2025)",
    "m4": "https://en.wikipedia.org/wiki/Apple_M4, https://support.apple.com/en-us/122211 (Mac Studio 2025)",
    "m5": "https://en.wikipedia.org/wiki/Apple_M5; Apple's announcement of 2026-03-03 (307 and 614 GB/s)",
    "m1 clock": "1296 MHz: https://github.com/philipturner/applegpuinfo/issues/1 (M1 Ultra), issues/2 (M1 Max), "
    "issues/7 (M1 Pro, powermetrics); 1278 MHz for M1: https://github.com/philipturner/metal-benchmarks",
    "m2 clock": "1398 MHz: https://github.com/philipturner/applegpuinfo/issues/6 (M2), issues/10 (M2 Max)",
    "m3 clock": "1380 MHz: https://github.com/philipturner/applegpuinfo/issues/4 (M3 Max, powermetrics), "
    "issues/15 (M3)",
    "m4 clock": "1578 MHz, the value most often reported (1470 to 1800): "
    "https://techboards.net/threads/apple-a19-m5-gpu-neural-accelerators.5297",
    "m5 clock": "1740 MHz: https://hmc-tech.com/gpu/apple-10-core-m5-vs-intel-uhd-620-1100mhz; about 1750 MHz: "
    "https://tzakharko.github.io/apple-neural-accelerators-benchmark",
    "m5 matrix": "1024 FLOP per core and cycle for FP16 matrices, measured on A19, which has the same cores: "
    "https://tzakharko.github.io/apple-neural-accelerators-benchmark",
    "working set": "WORKING_SET below holds the observations with their links",
}
"""Where a figure comes from."""


@dataclass(frozen=True)
class Variant:
    """One GPU that a chip is sold with.

    Attributes:
        gpu_cores: number of GPU cores.
        memory_gb: unified memory sizes sold with it, ascending.
        bandwidth_gbs: memory bandwidth in GB/s.
        estimated: figure to what its estimate rests on.
    """

    gpu_cores: int
    memory_gb: tuple[int, ...]
    bandwidth_gbs: float
    estimated: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chip:
    """A chip and its GPU variants, fewest cores first.

    Attributes:
        source: key of SOURCES for cores, memory and bandwidth.
        clock_mhz: highest GPU clock.
        clock_source: key of SOURCES.
        first_macos: major version of the oldest macOS that runs on it.
        fp16_factor: peak rate of FP16 matrix products over that of FP32.
        estimated: figure to what its estimate rests on, for all variants.
    """

    source: str
    clock_mhz: float
    clock_source: str
    first_macos: int
    variants: tuple[Variant, ...]
    fp16_factor: float = 1.0
    estimated: dict[str, str] = field(default_factory=dict)


_SAME_CLOCK = {"clock_mhz": "the clock measured on another chip of the same generation"}
_M3 = {"fp16_factor": "as measured on M1 and M2"}
_M3_SAME_CLOCK = {**_SAME_CLOCK, **_M3}
_M4 = {"clock_mhz": "reports between 1470 and 1800 MHz; the most frequent one is taken", **_M3}
_M5 = {
    "clock_mhz": "two reports that agree, none with a measurement on a Mac",
    "fp16_factor": "measured on A19, and only for Metal 4's tensor operations",
}
_M5_CONFIGURATIONS = {"memory_gb": "as with the chip before it; Apple's specifications were not at hand"}

CHIPS: dict[str, Chip] = {
    "M1": Chip("m1", 1278, "m1 clock", 11, (Variant(7, (8, 16), 68.25), Variant(8, (8, 16), 68.25))),
    "M1 Pro": Chip("m1", 1296, "m1 clock", 12, (Variant(14, (16, 32), 200), Variant(16, (16, 32), 200))),
    "M1 Max": Chip("m1", 1296, "m1 clock", 12, (Variant(24, (32, 64), 400), Variant(32, (32, 64), 400))),
    "M1 Ultra": Chip("m1", 1296, "m1 clock", 12, (Variant(48, (64, 128), 800), Variant(64, (64, 128), 800))),
    "M2": Chip("m2", 1398, "m2 clock", 12, (Variant(8, (8, 16, 24), 100), Variant(10, (8, 16, 24), 100))),
    "M2 Pro": Chip(
        "m2", 1398, "m2 clock", 13, (Variant(16, (16, 32), 200), Variant(19, (16, 32), 200)), estimated=_SAME_CLOCK
    ),
    "M2 Max": Chip("m2", 1398, "m2 clock", 13, (Variant(30, (32, 64), 400), Variant(38, (32, 64, 96), 400))),
    "M2 Ultra": Chip(
        "m2",
        1398,
        "m2 clock",
        13,
        (Variant(60, (64, 128, 192), 800), Variant(76, (64, 128, 192), 800)),
        estimated=_SAME_CLOCK,
    ),
    "M3": Chip(
        "m3", 1380, "m3 clock", 14, (Variant(8, (8, 16, 24), 100), Variant(10, (8, 16, 24), 100)), estimated=_M3
    ),
    "M3 Pro": Chip(
        "m3", 1380, "m3 clock", 14, (Variant(14, (18, 36), 150), Variant(18, (18, 36), 150)), estimated=_M3_SAME_CLOCK
    ),
    "M3 Max": Chip(
        "m3", 1380, "m3 clock", 14, (Variant(30, (36, 96), 300), Variant(40, (48, 64, 128), 400)), estimated=_M3
    ),
    "M3 Ultra": Chip(
        "m3",
        1380,
        "m3 clock",
        15,
        (Variant(60, (96, 256), 819), Variant(80, (96, 256, 512), 819)),
        estimated=_M3_SAME_CLOCK,
    ),
    "M4": Chip("m4", 1578, "m4 clock", 15, (Variant(8, (16, 24), 120), Variant(10, (16, 24, 32), 120)), estimated=_M4),
    "M4 Pro": Chip(
        "m4", 1578, "m4 clock", 15, (Variant(16, (24, 48, 64), 273), Variant(20, (24, 48, 64), 273)), estimated=_M4
    ),
    "M4 Max": Chip(
        "m4", 1578, "m4 clock", 15, (Variant(32, (36,), 410), Variant(40, (48, 64, 128), 546)), estimated=_M4
    ),
    "M5": Chip(
        "m5",
        1740,
        "m5 clock",
        26,
        (Variant(8, (16, 24), 153, _M5_CONFIGURATIONS), Variant(10, (16, 24, 32), 153)),
        fp16_factor=4,
        estimated=_M5,
    ),
    "M5 Pro": Chip(
        "m5",
        1740,
        "m5 clock",
        26,
        (Variant(16, (24, 48), 307, _M5_CONFIGURATIONS), Variant(20, (24, 48, 64), 307, _M5_CONFIGURATIONS)),
        fp16_factor=4,
        estimated=_M5,
    ),
    "M5 Max": Chip(
        "m5",
        1740,
        "m5 clock",
        26,
        (
            Variant(32, (36,), 460, {"bandwidth_gbs": "three quarters of the full chip's memory bus, as in M4 Max"}),
            Variant(40, (48, 64, 128), 614, _M5_CONFIGURATIONS),
        ),
        fp16_factor=4,
        estimated=_M5,
    ),
}
"""Every chip that Apple has put into a Mac under the names M1 to M5. There is no M4 Ultra; no M5 Ultra was announced in
the sources at hand."""


@dataclass(frozen=True)
class WorkingSet:
    """Metal's ``recommendedMaxWorkingSetSize`` as a share of the memory, from a memory size upwards.

    Attributes:
        from_gb: the smallest memory to which it applies.
        share: numerator and denominator.
        observed: memory size in GB to where the value was seen; empty for an estimate.
    """

    from_gb: int
    share: tuple[int, int]
    observed: dict[int, str] = field(default_factory=dict)


WORKING_SET: tuple[WorkingSet, ...] = (
    WorkingSet(
        0,
        (2, 3),
        {
            8: "https://github.com/datalab-to/surya/issues/254 (max allowed 9.07 GB, 1.7 times as much)",
            16: "https://github.com/pinokiocomputer/pinokio/issues/941 (max allowed 18.13 GB, macOS 14.7)",
            24: "ggml's log on M2, M3 and M4 Pro: 17179.89 MB; "
            "https://github.com/Comfy-Org/ComfyUI/issues/7440 (max allowed 27.20 GiB)",
            32: "https://github.com/ollama/ollama/issues/434 (21845.34 MiB)",
        },
    ),
    WorkingSet(
        36,
        (3, 4),
        {
            36: "ggml's log: 28991.03 MB",
            48: "https://github.com/tinygrad/tinygrad/pull/9225 (limits of 61.20 and 50.40 GB, 1.7 and 1.4 times it)",
            64: "https://github.com/ggml-org/llama.cpp/issues/1870 (49152.00 MiB)",
            96: "https://github.com/ggml-org/llama.cpp/issues/3213 (73728.00 MiB)",
            128: "ggml's log on M3 Max and M4 Max: 103079.22 MB",
            192: "https://github.com/ml-explore/mlx/pull/1060 (max_buffer_length 115964116992, three quarters of it)",
        },
    ),
    WorkingSet(256, (13, 16), {256: "MLX's device_info on M3 Ultra: 223338299392"}),
)
"""Up to macOS 15. 18 GB is taken to follow 16 GB, 512 GB to follow 256 GB."""

WORKING_SET_26: tuple[WorkingSet, ...] = (
    WorkingSet(0, (2, 3), {8: "MLX's device_info on A18 Pro, macOS 26.5.1: 5726633984"}),
    WorkingSet(
        16,
        (74, 100),
        {
            16: "https://github.com/AlexsJones/llmfit/pull/754 (11.84 GB); ggml's log: 12713.12 MB",
            24: "MLX's device_info on M4 Pro: 19069665280; ggml's log on M4 and M5: 19069.67 MB",
        },
    ),
    WorkingSet(
        32,
        (78, 100),
        {
            36: "MLX's device_info on M3 Pro: 30150672384",
            48: "MLX's device_info on M4 Pro: 40200896512",
        },
    ),
    WorkingSet(64, (81, 100), {64: "MLX's device_info on M5 Max: 55662788608"}),
    WorkingSet(
        128,
        (84, 100),
        {128: "https://github.com/antirez/ds4/pull/893 (107.52 GiB); MLX's device_info on M5 Max: 115448725504"},
    ),
    WorkingSet(256, (87, 100), {256: "https://github.com/raullenchai/Rapid-MLX/pull/183 (239 GB)"}),
)
"""From macOS 26 on. Sizes in between are taken to follow the next smaller one that was seen; 512 GB follows 256 GB."""
