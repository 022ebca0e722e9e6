"""The collector is as it was afterwards, whatever happens inside."""

import gc

import pytest

from ftlab.tracking.gc_pause import none_is_made, what_is_stays


@pytest.mark.parametrize("enabled", [True, False])
def test_none_is_made(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError), none_is_made():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_what_is_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))
    monkeypatch.setattr(gc, "unfreeze", frozen.clear)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: len(frozen))
    with pytest.raises(ZeroDivisionError), what_is_stays():
        assert frozen
        raise ZeroDivisionError
    assert not frozen
    frozen.append(1)  # by the process, for good
    with what_is_stays():
        pass
    assert frozen == [1]
