"""`python3 -m sparkhost.sampler`: the same as the service."""

import sys

from sparkhost.sampler.main import main

sys.exit(main())
