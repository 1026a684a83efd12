"""The contract of plugins, on the test kit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptm_plus.testing import parametrize_with_checks

pytestmark = pytest.mark.k_adapter


@parametrize_with_checks("k-adapter")
def test_the_contract(check: Callable[[], None]) -> None:
    check()
