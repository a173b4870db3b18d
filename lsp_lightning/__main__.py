"""``python -m lsp_lightning`` is ``lsp-lightning``."""

from lsp_lightning.main import main

raise SystemExit(main())
