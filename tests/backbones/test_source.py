import hashlib
import sys

import pytest

from ftlab.backbones.source import check_sha256, is_hub_id, resolve_path, sha256_of
from ftlab.errors import InputError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on the path, with a file and a neighbour outside."""
    folder = tmp_path / "made_up_package"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "data" / "a.csv").write_text("x")
    (tmp_path / "secret").write_text("x")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_resolve_path__package_is_found_without_import(package):
    assert resolve_path("package:made_up_package/data/a.csv") == package / "data" / "a.csv"
    assert resolve_path("package:made_up_package/data") == package / "data"
    assert resolve_path("package:made_up_package") == package
    assert "made_up_package" not in sys.modules


def test_resolve_path__expands_home_and_variables(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FTLAB_TEST", str(tmp_path))
    assert resolve_path("~/a") == resolve_path("${FTLAB_TEST}/a") == tmp_path / "a"
    (tmp_path / "a$").touch()
    assert resolve_path(f"{tmp_path}/a$") == tmp_path / "a$"


@pytest.mark.parametrize(("source", "what", "mend"), [
    ("package:no_such_package/a", "no_such_package is not installed",
     "pip install no-such-package"),
    ("package:made_up_package/../secret", "leaves the package", ".."),
    ("package:made_up_package/data/../../secret", "leaves the package", ".."),
    ("package:made_up_package//etc/passwd", "leaves the package", "below"),
    ("package:made_up_package/b.csv", "has no b.csv", "made_up_package"),
    ("package:made-up-package/a", "not the import name", "package:NAME/PATH"),
    ("package:", "not the import name", "package:NAME/PATH"),
    ("package:six.moves/a", "not the import name", "package:NAME/PATH"),
    ("${FTLAB_NOT_SET}/a", "FTLAB_NOT_SET is not set", "export FTLAB_NOT_SET="),
    ("no/such/file", "no such file", "check the path"),
])
def test_resolve_path__mistakes_are_told(source, what, mend, package):
    with pytest.raises(InputError) as error:
        resolve_path(source)
    assert source in error.value.what and what in error.value.what
    assert mend in error.value.mend


def test_is_hub_id__names_but_not_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert is_hub_id("bert-base-uncased")
    assert is_hub_id("sentence-transformers/all-MiniLM-L6-v2")
    for source in ("org/name", "./org", "/org/name", "a/b/c", "package:a/b", "~/a", "${A}/b", ""):
        assert not is_hub_id(source), source


def test_sha256_of__one_file_is_its_own(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"abc" * 100_000)
    assert sha256_of([file]) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_sha256_of__tells_changes_names_and_order_apart(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    both = sha256_of([a, b])
    assert both == sha256_of([b, a])
    b.write_bytes(b"33")
    assert sha256_of([a, b]) != both
    b.write_bytes(b"1")
    a.write_bytes(b"2")
    assert sha256_of([a, b]) != both


def test_check_sha256__takes_a_beginning(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    check_sha256([file], None, "here")
    for good in ("ba7816bf", "BA7816BF", hashlib.sha256(b"abc").hexdigest()):
        check_sha256([file], good, "here")
    for bad in ("", "ba7816be", "7816bf"):
        with pytest.raises(InputError, match="here: sha256 is"):
            check_sha256([file], bad, "here")
