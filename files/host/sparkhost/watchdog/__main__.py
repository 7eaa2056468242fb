"""`python3 -m sparkhost.watchdog`: the same as `spark-watchdog`."""

import sys

from sparkhost.watchdog.cli import main

sys.exit(main())
