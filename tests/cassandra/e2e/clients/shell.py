"""cqlsh, with a mended driver."""

from __future__ import annotations

import sys

import headers
from cqlshlib.__main__ import main

headers.mend()
sys.exit(main())
