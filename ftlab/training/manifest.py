"""What a checkpoint's manifest is called; without PyTorch, for who only reads or marks it."""

MANIFEST = "manifest.json"
FAILED = "failed"
"""The manifest's key that says why its run failed; a finished run's has none."""
