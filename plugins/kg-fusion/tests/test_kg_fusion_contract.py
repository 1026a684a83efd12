"""The contract of plugins, on the test kit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptm_plus.testing import parametrize_with_checks

pytestmark = pytest.mark.kg_fusion


@parametrize_with_checks(
    "kg-fusion",
    expected_failures={"two-instances": "two fusions at one block need a declared order"},
)
def test_the_contract(check: Callable[[], None]) -> None:
    check()
