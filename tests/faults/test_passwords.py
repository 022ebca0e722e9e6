"""A password in an address is said nowhere, in whatever form it is given, through whichever door."""

import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
import yaml

from ftlab import redaction
from ftlab.addresses import parse, shown
from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.studies import run_process
from ftlab.studies.engines import make_engine
from ftlab.tracking.records import CellKey
from ftlab.tracking.tags import cell_tags
from ftlab.visible import VisibleStream

UNRENDERED = True
CANARY = "kAnArY7x"
CLOSED = "127.0.0.1:9"  # nothing listens at the discard port

FORMS = {
    "plain": f"postgresql://me:{CANARY}@{CLOSED}/db",
    "slash": f"postgresql://me:{CANARY}/{CANARY}@{CLOSED}/db",
    "at": f"postgresql://me:{CANARY}@{CANARY}@{CLOSED}/db",
    "space": f"postgresql://me:{CANARY} {CANARY}@{CLOSED}/db",
    "quotes": f"postgresql://me:{CANARY}'\"{CANARY}@{CLOSED}/db",
    "question": f"postgresql://me:{CANARY}?{CANARY}@{CLOSED}/db",
    "hash": f"postgresql://me:{CANARY}#{CANARY}@{CLOSED}/db",
    "colon": f"postgresql://me:{CANARY}:{CANARY}@{CLOSED}/db",
    "encoded": f"postgresql://me:%2F{CANARY}%40{CANARY}@{CLOSED}/db",
    "driver": f"postgresql+psycopg://me:{CANARY}@{CLOSED}/db",
    "other driver": f"postgresql+{CANARY}x://me:{CANARY}@{CLOSED}/db".replace(f"+{CANARY}x", "+pg8000"),
    "pwd": f"postgresql://{CLOSED}/db?user=me&pwd={CANARY}",
    "password": f"postgresql://{CLOSED}/db?user=me&password={CANARY}",
    "sslpassword": f"postgresql://{CLOSED}/db?sslpassword={CANARY}",
    "no host": f"postgresql://me:{CANARY}/db",
    "socket": f"postgresql://me:{CANARY}@/db?host=/nowhere&password={CANARY}",
    "port of letters": f"postgresql://me:{CANARY}@localhost:{CANARY}/db",
    "port too large": f"postgresql://me:{CANARY}@localhost:99999/db",
    "port of other digits": f"postgresql://me:{CANARY}@localhost:\u0663/db",
    "IPv6": f"postgresql://me:{CANARY}@[::1]:9/db",
    "IPv6 without brackets": f"postgresql://me:{CANARY}@::1:9/db",
    "half a bracket": f"postgresql://me:{CANARY}@[::1:9/db",
    "no address in brackets": f"postgresql://me:{CANARY}@[zz]:9/db",
    "host that is no name": f"postgresql://me:{CANARY}@a..b/db",
    "unknown host": f"postgresql://me:{CANARY}@nowhere.invalid/db",
    "MySQL": f"mysql+pymysql://me:{CANARY}@{CLOSED}/db?ssl_key={CANARY}",
    "ODBC": f"mssql+pyodbc://{CLOSED}/?odbc_connect=PWD%3D{CANARY}",
    "SQLite with a host": f"sqlite://me:{CANARY}@host/db",
    "SQLite in no folder": f"sqlite:///nowhere/a.db?password={CANARY}",
    "HTTP": f"http://me:{CANARY}@{CLOSED}",
    "HTTP, slash": f"http://me:{CANARY}/{CANARY}@{CLOSED}",
    "HTTP, hash": f"http://me:{CANARY}#{CANARY}@{CLOSED}",
    "HTTP, no host": f"http://me:{CANARY}@",
    "HTTP, port": f"http://me:{CANARY}@localhost:{CANARY}",
    "HTTP, half a bracket": f"http://me:{CANARY}@[::1",
    "unknown scheme": f"gopher://me:{CANARY}@host/db",
    "one slash": f"postgresql:/me:{CANARY}@host/db",
    "no scheme": f"me:{CANARY}@host:5432/db",
    "no scheme, slash": f"me:{CANARY}/{CANARY}@host/db",
}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case finds its own secrets."""
    monkeypatch.setattr(redaction, "_secrets", set())
    monkeypatch.setattr(redaction, "_addresses", {})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_MAX_RETRIES", "1")


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({
        "name": "study", "backbones": {"bert": {"class_path": "HuggingFace",
                                                "init_args": {"source": str(tiny_bert)}}},
        "datasets": {"reviews": {"class_path": "TextClassification",
                                 "init_args": {"train": str(reviews), "max_length": 16}}},
        "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.1}}},
        "seeds": [0], "trainer": {"max_epochs": 1}}))
    return path


def of_sweep(folder: Path, address: str) -> tuple[object, ...]:
    (folder / "sweep.yaml").write_text(yaml.safe_dump({
        "name": "sweep", "study": "study.yaml", "trials": 1, "storage": address.replace("$", "$$")}))
    return "status", "sweep.yaml"


DOORS: dict[str, Callable[[Path, str], tuple[object, ...]]] = {
    "table": lambda folder, address: ("table", folder / "study.yaml", "--tracking-uri", address),
    "ui": lambda folder, address: ("ui", "--tracking-uri", address),
    "compare": lambda folder, address: ("compare", f"{address}#study", f"{address}#study"),
    "export": lambda folder, address: ("export", "abcdef12", "--tracking-uri", address),
    "status": of_sweep,
    "doctor": lambda folder, address: ("doctor", "--tracking-uri", address),
}


def hits(folder: Path) -> list[str]:
    """Files that we wrote with the canary in their content or name."""
    given = ("study.yaml", "sweep.yaml")
    return [str(path) for path in folder.rglob("*") if path.name not in given and (
        CANARY in path.name or (path.is_file() and CANARY.encode() in path.read_bytes()))]


# The store's address and the storage's are read at one place each, whatever asks: two doors are
# shown every form, the others one of each way to fail.
SOME = ("plain", "slash", "at", "sslpassword", "socket", "port of letters",
        "IPv6 without brackets", "SQLite with a host", "HTTP, slash", "no scheme")
CASES = [(door, form) for door in DOORS for form in FORMS
         if door in ("table", "status") or form in SOME]


@pytest.mark.parametrize(("door", "form"), CASES)
def test_door__says_two_lines_and_no_password(door: str, form: str, here, study: Path) -> None:
    code, output, errors = here(*DOORS[door](study.parent, FORMS[form]))
    said = output + errors
    assert CANARY not in said and "Traceback" not in said
    if door == "doctor":
        assert code == 1 and "BAD  tracking store" in output
    else:
        assert code in (1, 2) and len(errors.splitlines()) == 2
        assert errors.startswith("error: ")
    assert hits(study.parent) == []


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI"])
def test_environment__is_a_door_too(name: str, here, study: Path, monkeypatch) -> None:
    monkeypatch.setenv(name, FORMS["slash"])
    code, output, errors = here("run", study)
    assert code == 2 and CANARY not in output + errors and len(errors.splitlines()) == 2


@pytest.mark.parametrize("form", FORMS)
def test_text__of_an_address_hides_its_password_before_it_is_understood(form: str) -> None:
    assert CANARY not in shown(FORMS[form])
    try:
        assert CANARY not in str(parse(FORMS[form], "store"))
    except InputError as error:
        assert CANARY not in str(error)


@pytest.mark.parametrize("address", [
    f"ray://me:{CANARY}/x@head:10001", f"me:{CANARY}@head:6379", f"http://me:{CANARY}@head"])
def test_engine__of_an_address_with_a_password(address: str) -> None:
    with pytest.raises(InputError) as caught:
        make_engine("local", address)
    assert CANARY not in str(caught.value)


ADDRESSES = {
    "postgresql://h/db": ("postgresql://h/db", "h", None),
    "postgresql+psycopg://me:a/b@h:5433/db?x=1": ("postgresql+psycopg://h:5433/db", "h", 5433),
    "postgresql://me:a%40b@[2001:db8::1]:5433/db": (
        "postgresql://[2001:db8::1]:5433/db", "2001:db8::1", 5433),
    "postgresql://me@/db?host=/run/postgresql": ("postgresql:///db", "", None),
    "https://me:a@mlflow.example:8443/team": (
        "https://mlflow.example:8443/team", "mlflow.example", 8443),
    "http://10.0.0.7:5000": ("http://10.0.0.7:5000", "10.0.0.7", 5000),
    "postgresql://bücher.example/db": ("postgresql://bücher.example/db", "bücher.example", None),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_parse__reads_what_sqlalchemy_reads(text: str) -> None:
    address = parse(text, "store")
    assert (str(address), address.host, address.port) == ADDRESSES[text]
    assert (address.uri == text and text not in repr(address)) or "@" not in text
    if text.startswith("postgresql"):
        reference = sqlalchemy.make_url(text)
        assert (address.host, address.port) == (reference.host or "", reference.port)


QUOTED = {
    "decoded": "connection failed for me with password 'p/w@kAnArY7x': no",
    "encoded": "cannot parse p%2Fw%40kAnArY7x",
    "encoded twice": "GET /?next=p%252Fw%2540kAnArY7x",
    "as HTTP sends it": "Authorization: Basic bWU6cC93QGtBbkFyWTd4",
    "the whole address": "invalid postgresql://me:p%2Fw%40kAnArY7x@h/db",
    "the pieces of it": "(host='h', password='p/w@kAnArY7x')",
}


@pytest.mark.parametrize("quoted", [q for q in QUOTED if q != "encoded twice"])
def test_redact__whatever_a_library_says_of_a_known_password(quoted: str) -> None:
    parse("postgresql://me:p%2Fw%40kAnArY7x@h/db", "store")
    said = redact(QUOTED[quoted])
    assert CANARY not in said and "bWU6" not in said
    assert said != QUOTED[quoted]


def test_traceback__in_a_log_file_has_no_password(tmp_path: Path) -> None:
    parse("postgresql://me:p%2Fw%40kAnArY7x@h/db", "store")
    with (tmp_path / "output.log").open("w") as file:
        stream = VisibleStream(file)
        try:
            try:
                raise OSError("could not log in as me:p/w@kAnArY7x")
            except OSError as error:
                raise ValueError("no store at postgresql://me:p%2Fw%40kAnArY7x@h/db") from error
        except ValueError as error:
            traceback.print_exception(error, file=stream)
            reason = run_process.first_line(error)
        logger = logging.getLogger("stranger")
        handler = logging.StreamHandler(stream)
        logger.addHandler(handler)
        logger.warning("retrying %s", "https://me:kAnArY7x@hub.example/api")
        logger.removeHandler(handler)
    text = (tmp_path / "output.log").read_text()
    said = [line for line in text.splitlines() if "raise " not in line]  # this file's own source
    assert not [line for line in said if CANARY in line]
    assert "no store at postgresql://h/db" in text and "https://hub.example/api" in text
    assert CANARY not in reason


def test_words__that_are_no_secret_stay() -> None:
    parse("postgresql://postgres:postgres@h/db", "store")
    assert redact("postgresql needs psycopg") == "postgresql needs psycopg"
    for text in ("https://github.com/a/b@v1", "see http://h:5000/a@b", "me@example.org", "a:b@c",
                 "https://h/?page=2&monkey=1"):
        kept = redact(text)
        assert kept.replace("[redacted]", "1") == text or text.startswith("https://github")


PROSE = [
    "hf_sequence_classification", "hf_sequence_classification_with_layers_2",
    "ghs_mean_pooling_of_last",
    "glpat-is-no-token-of-any-kind", "Does Basic augmentation help?", "Bearer documents",
    "a Basic classification baseline", "no password given", "monkey=banana; keys=1"]
TOKENS = [
    f"hf_{'kAnArY' * 6}", f"ghp_{'kAnArY7x' * 5}", f"github_pat_{'kAnArY7x_' * 6}",
    f"glpat-{'kAnArY7x-' * 3}"]


@pytest.mark.parametrize("text", PROSE)
def test_redact__leaves_names_and_sentences(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("token", TOKENS)
def test_redact__takes_out_tokens(token: str) -> None:
    assert redact(f"remote: {token}, no") == "remote: [redacted], no"


@pytest.mark.parametrize(("text", "kept"), [
    (f"Authorization: Basic {CANARY}==", "Authorization: Basic "),
    (f"{{'authorization': 'Bearer {CANARY}.x'}}", "{'authorization': 'Bearer "),
    (f"proxy-authorization=bearer {CANARY}", "proxy-authorization=bearer "),
    (f"host=h user=me password={CANARY} dbname=a", "host=h user=me password="),
    (f"host=h password='a {CANARY}' dbname=a", "host=h password="),
    (f"AccountName=me;AccountKey={CANARY}/a==;EndpointSuffix=x", "AccountName=me;AccountKey="),
    (f"AccountKey={CANARY}", "AccountKey=")])
def test_redact__keeps_what_says_that_it_is_a_secret(text: str, kept: str) -> None:
    said = redact(text)
    assert CANARY not in said and said.startswith(f"{kept}[redacted]")
    assert redact(said) == said


@pytest.mark.parametrize("word", ["postgres", "accuracy", "training", "baseline", "12345678"])
def test_password__that_is_a_word_is_taken_out_of_addresses_alone(word: str) -> None:
    address = f"postgresql://me:{word}@h/db"
    parse(address, "store")
    assert redact(f"the {word} of {word}-2 at {address}") == (
        f"the {word} of {word}-2 at postgresql://h/db")
    assert word not in redact(f"GET mysql://me:{word}@h?password={word}")


@pytest.mark.parametrize("password", ["correcthorsebattery", "kanary7x", "123456789012"])
def test_password__that_is_no_word_is_taken_out_of_all(password: str) -> None:
    parse(f"postgresql://me:{password}@h/db", "store")
    assert redact(f"no: {password}.") == "no: [redacted]."


@pytest.mark.parametrize("password", ["lora-of-the-probe", "probe-on-bert"])
def test_tags__by_which_cells_are_found_are_as_they_are(password: str) -> None:
    parse(f"postgresql://me:{password}@h/db", "store")
    key = CellKey("study-of-postgres-v1", "bert", "reviews", password, "0123abcd")
    assert cell_tags(key, [0, 1], 0, 0)["ftlab.technique"] == password


@pytest.mark.parametrize("address", [
    "sqlite:////home/jane@corp.example/p/mlflow.db", "sqlite:///a:b@c/mlflow.db",
    "sqlite+pysqlite:///jane@corp.example.db"])
def test_path__with_an_at_is_said_as_it_is(address: str) -> None:
    assert shown(address) == address
    assert shown(f"{address}?timeout={CANARY}") == address
    assert str(parse(address, "store")) == address
    assert redact(f"writes are for {address}.") == f"writes are for {address}."


def test_address__understood_at_last_is_said_whole() -> None:
    redaction.add_address("odd://a@b", "odd://b")
    redaction.add_address("odd://a@b", "odd://a@b")
    assert redaction._addresses == {}


@pytest.mark.parametrize("user", ["", f"me:{CANARY}@"])
def test_parse__of_several_hosts_names_the_form_of_sqlalchemy(user: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(f"postgresql://{user}h1:5432,h2:5432/db", "store")
    assert CANARY not in str(caught.value)
    assert "postgresql://USER:PASSWORD@/DB?host=HOST1:5432&host=HOST2:5432" in caught.value.mend
    assert sqlalchemy.make_url("postgresql:///db?host=h1:5432&host=h2:5432").query == {
        "host": ("h1:5432", "h2:5432")}


SECRETS = {
    "HF_TOKEN": "hf_kAnArY7xkAnArY7xkAnArY7x", "HUGGING_FACE_HUB_TOKEN": "old-kAnArY7x-token",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-kAnArY7x", "MLFLOW_TRACKING_TOKEN": "bearer-kAnArY7x",
    "AWS_SECRET_ACCESS_KEY": "aws/kAnArY7x+secret", "PGPASSWORD": "pg kAnArY7x",
    "HTTPS_PROXY": "http://me:kAnArY7x@proxy.invalid:3128",
    "https_proxy": "http://me:kAnArY7x/2@proxy.invalid:3128",
    "HF_ENDPOINT": "https://me:kAnArY7x@hub.invalid",
    "RAY_ADDRESS": "ray://me:kAnArY7x@head.invalid:10001",
}


@pytest.mark.parametrize("name", SECRETS)
def test_environment__secrets_of_it_are_known(name: str, monkeypatch) -> None:
    monkeypatch.setenv(name, SECRETS[name])
    redaction.add_environment()
    value = SECRETS[name]
    password = value.partition("://")[2].rpartition("@")[0].partition(":")[2] or value
    for text in (value, f"the server said {password}, no", repr(value), json.dumps([password])):
        assert CANARY not in redact(text)


@pytest.mark.parametrize("value", [
    f"DefaultEndpointsProtocol=https;AccountName=me;AccountKey={CANARY}/a==;EndpointSuffix=x",
    f"host=h user=me password={CANARY}", f"postgresql://h/db?user=me&password={CANARY}"])
def test_environment__settings_in_a_value_are_known(value: str, monkeypatch) -> None:
    monkeypatch.setenv("CONNECTION", value)
    redaction.add_environment()
    secret = f"{CANARY}/a==" if "AccountKey" in value else CANARY
    assert redact(f"the server said {secret}, no") == "the server said [redacted], no"


def test_environment__paths_of_files_are_no_secrets(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "credentials.json").touch()
    path = str(tmp_path / "credentials.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
    monkeypatch.setenv("APP_PASSWORD", f"{path}-kAnArY7x")
    redaction.add_environment()
    assert redact(f"no rights in {path}") == f"no rights in {path}"
    assert redact(f"{path}-kAnArY7x") == "[redacted]"


@pytest.mark.slow
def test_run__with_twelve_canaries_leaves_none_anywhere(study: Path, tmp_path: Path) -> None:
    """The environment's, a git remote's and a setting's, in a checkout; one technique fails."""
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://me:kAnArY7x@git.invalid/a"], check=True)
    settings = yaml.safe_load(study.read_text())
    settings["question"] = "Is https://me:kAnArY7x@data.invalid/x better?"
    settings["techniques"]["bad"] = {"class_path": "LinearProbe", "init_args": {"lr": 1e30, "solver": None}}
    settings["select_by"] = "val/loss"
    study.write_text(yaml.safe_dump(settings))
    environment = {**os.environ, **SECRETS, "HF_HUB_OFFLINE": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    said = ""
    for words in (("run", study), ("table", study), ("report", study), ("doctor",)):
        done = subprocess.run([sys.executable, "-m", "ftlab.cli", *map(str, words)], cwd=tmp_path,
                              env=environment, capture_output=True, text=True, check=False)
        said += done.stdout + done.stderr
    assert CANARY not in said
    assert [hit for hit in hits(tmp_path) if "/.git/" not in hit] == []
    assert (tmp_path / "results" / "study" / "report.html").exists()
