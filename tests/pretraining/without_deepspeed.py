"""`bert-lamb` as if deepspeed were not installed."""

import sys

from bert_lamb.cli.main import main

if __name__ == "__main__":
    sys.modules["deepspeed"] = None  # to import it is an ImportError
    sys.exit(main())
