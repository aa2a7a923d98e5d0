"""Thin layers that translate calls of scikit-learn or of a shell into ours; no mathematics lives here."""
