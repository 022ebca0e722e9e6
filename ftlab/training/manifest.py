"""The name of a checkpoint's manifest, and its mark of failure; imports no PyTorch."""

MANIFEST = "manifest.json"
FAILED = "failed"
"""The manifest's key that says why its run failed; a finished run's has none."""
