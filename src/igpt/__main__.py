"""`python -m igpt` is the `igpt` command."""

from igpt.search_path import leave_out_current_folder

leave_out_current_folder()

import sys  # noqa: E402

from igpt.cli import main  # noqa: E402

sys.exit(main())
