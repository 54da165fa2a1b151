"""`python -m ananse_client.cli`."""

import sys

from ananse_client.cli import main

sys.exit(main())
