"""``python -m atoma``."""

from __future__ import annotations

import sys

from atoma.cli import main

sys.exit(main())
