"""What the metadata of an installed library excludes."""

from __future__ import annotations

from patcher.engine.requirements import Fault, unmet
from tests.engine.conftest import Library


def test_an_excluded_version_is_named_with_what_excludes_it(library: Library) -> None:
    """Only of the libraries that are asked about, however their names are written; not extras, nor what is absent."""
    library.distribution(
        "maker", "9.1", "Some_Lib>=1.0,<2.0,!=2.1", "fits>1", "extra-lib<1; extra == 'more'", "absent>3"
    )
    for name, version in (("some_lib", "2.1"), ("fits", "2.0+cpu"), ("extra_lib", "5.0"), ("other", "5.0")):
        library.distribution(name, version)
    names = ("some.lib", "fits", "extra-lib", "absent")
    assert unmet("maker", names) == ("Some_Lib!=2.1,<2.0 (2.1 is installed)",)
    assert unmet("maker", ("fits",)) == () and unmet("no-such-library", names) == ()


def test_what_cannot_be_read_is_left_out(library: Library) -> None:
    """A requirement in no known form says nothing."""
    library.distribution("maker", "1.0", "???", "lib<2")
    library.distribution("lib", "2.0")
    assert unmet("maker", ("lib",)) == ("lib<2 (2.0 is installed)",)


def test_the_faults_are_those_of_the_releases_that_showed_them() -> None:
    """And of no other: in docs/versions.md each has its release, and the next ones go."""
    from patcher.engine.requirements import DECODING, GEMMA_2

    assert GEMMA_2.is_in({"unsloth": "2026.4.8", "transformers": "5.5.0"})
    assert not GEMMA_2.is_in({"unsloth": "2026.9.12", "transformers": "5.5.0"})
    assert DECODING.is_in({"unsloth": "2026.3.18", "transformers": "5.3.0"})
    for release, transformers in (("2026.3.18", "4.57.6"), ("2026.4.8", "5.5.0")):
        assert not DECODING.is_in({"unsloth": release, "transformers": transformers})


def test_a_fault_needs_all_its_libraries() -> None:
    """Each in a version that has it; one that is not installed has none."""
    fault = Fault({"maker": "<2", "lib": ">=5.4"}, "it goes wrong")
    assert fault.is_in({"maker": "1.9", "lib": "5.5.0"}) and fault.is_in({"maker": "1.9rc1", "lib": "6", "other": "1"})
    assert not fault.is_in({"maker": "2.0", "lib": "5.5.0"}) and not fault.is_in({"maker": "1.9", "lib": "5.3.0"})
    assert not fault.is_in({"maker": "1.9", "lib": None}) and not fault.is_in({"maker": "1.9"})
