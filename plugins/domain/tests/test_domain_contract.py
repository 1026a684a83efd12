"""The contract of plugins, on the test kit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptm_plus.testing import parametrize_with_checks

pytestmark = pytest.mark.domain


@parametrize_with_checks(
    "domain",
    expected_failures={
        "two-instances": "general and task text are streams of the run, each there once"
    },
)
def test_the_contract(check: Callable[[], None]) -> None:
    check()
