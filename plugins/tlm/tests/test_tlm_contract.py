"""The contract of plugins, on the test kit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptm_plus.testing import parametrize_with_checks

pytestmark = pytest.mark.tlm


@parametrize_with_checks(
    "tlm",
    expected_failures={"two-instances": "the pairs are a stream of the run, which is there once"},
)
def test_the_contract(check: Callable[[], None]) -> None:
    check()
