"""``python -m lsp_lightning`` is ``lsp-lightning``."""

from lsp_lightning.cli.main import main

raise SystemExit(main())
