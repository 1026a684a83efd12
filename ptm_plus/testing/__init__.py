"""The test kit: what every plugin must hold, as named checks.

    from ptm_plus.testing import parametrize_with_checks

    @parametrize_with_checks("capitals")
    def test_capitals(check):
        check()

``world`` is the small world that runs are made on, ``subject`` a plugin under test, ``checks`` the
table of all checks; ``contract``, ``training`` and ``together`` hold them.
"""

from __future__ import annotations

from ptm_plus.testing.checks import (
    Check,
    check_names,
    parametrize_with_checks,
    plugin_checks,
)
from ptm_plus.testing.failing import NotApplicable

__all__ = ["Check", "NotApplicable", "check_names", "parametrize_with_checks", "plugin_checks"]
