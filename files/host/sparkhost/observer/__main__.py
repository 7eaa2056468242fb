"""`python3 -m sparkhost.observer`: the same as the service."""

import sys

from sparkhost.observer.main import main

sys.exit(main())
