"""Thin layers that translate the calls of scikit-learn or a shell into elltwo's; no mathematics lives here."""
