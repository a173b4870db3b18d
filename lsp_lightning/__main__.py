"""``python -m lsp_lightning`` runs ``lsp-lightning``."""

from lsp_lightning.cli.main import main

raise SystemExit(main())
