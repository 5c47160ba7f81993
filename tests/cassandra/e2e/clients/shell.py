"""cqlsh, with a mended driver."""

from __future__ import annotations

import sys

import headers  # noqa: F401 - of its effect
from cqlshlib.__main__ import main

sys.exit(main())
