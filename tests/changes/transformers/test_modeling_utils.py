"""FlashAttention that is asked for on a Mac."""

from __future__ import annotations

import pytest

from patcher.errors import NotOnMac
from patcher.replacements.transformers.modeling_utils import _flash_attn_import_error


@pytest.mark.parametrize("version", [2, 3])
def test_what_to_pass_instead_is_said(version: int) -> None:
    """Upstream tells the user to install a package that no Mac can install."""
    with pytest.raises(NotOnMac) as raised:
        _flash_attn_import_error(object(), version, None, None, ())
    for text in (f"flash_attention_{version}", '"sdpa"', "no model was loaded"):
        assert text in str(raised.value)
    assert not isinstance(raised.value, ImportError)
