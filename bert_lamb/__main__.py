"""`python -m bert_lamb` is the same as the console script; launchers that want a module use it."""

import sys

from bert_lamb.cli.main import main

sys.exit(main())
