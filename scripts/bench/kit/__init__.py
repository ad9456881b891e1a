"""What two or more benches need. Importing it puts the checkout first on sys.path.

`bert_lamb` is then this checkout's, and `data_prep` the package rather than the bench of that name. That is why a bench
imports from here before it imports either.
"""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT))
