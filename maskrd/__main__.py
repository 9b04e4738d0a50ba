import os
import sys

if "MASKRD_PRELOADED" in os.environ:  # `make demo`: a process that has imported everything does the work
    from maskrd.preloaded import hand_over

    if (code := hand_over()) is not None:
        sys.exit(code)

from maskrd.cli import main

main()
