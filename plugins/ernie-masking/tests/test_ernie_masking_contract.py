"""The contract of plugins, on the test kit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptm_plus.testing import parametrize_with_checks

pytestmark = pytest.mark.ernie_masking


@parametrize_with_checks("ernie-masking")
def test_the_contract(check: Callable[[], None]) -> None:
    check()
