"""Sends an exported folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # in its documentation

from ftlab.errors import FtlabError, InputError
from ftlab.redaction import redact


def check_repository(name: str, folder: bool, dry_run: bool) -> None:
    """Refuse what cannot be sent before anything is built.

    Args:
        name: of the repository.
        folder: whether a folder stays here.
        dry_run: whether nothing is to be sent.

    Raises:
        InputError: no name of a repository, or a dry run without a folder to look at.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--push {name}: not the name of a repository ({str(error).splitlines()[0]})",
                         "NAME or OWNER/NAME: letters, digits, '-', '_' and '.'") from error
    if dry_run and not folder:
        raise InputError("--dry-run of --push has no folder for what would be sent", "add --out DIR")


def send(folder: Path, name: str, public: bool, title: str) -> str:
    """Make the repository where there is none, and put the folder there in one commit; its address.

    Args:
        folder: to send, whole.
        name: of the repository.
        public: whether one that is made is public.
        title: of the model, for the commit.

    Raises:
        InputError: no token, or one that may not write there.
        FtlabError: the hub does not answer, or refuses.
    """
    api = HfApi()
    try:
        if "/" not in name:
            name = f"{api.whoami()['name']}/{name}"
        made = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=made.repo_id, commit_message=f"{title}, by ftlab")
    except LocalTokenNotFoundError as error:
        raise InputError("the hub asks for a token, and there is none", "hf auth login, or HF_TOKEN") from error
    except HfHubHTTPError as error:
        reason = redact(str(error).strip().splitlines()[0])
        if error.response is not None and error.response.status_code in (401, 403):
            raise InputError(f"--push {name}: the hub refuses ({reason})",
                             "hf auth login with a token that may write there") from error
        raise FtlabError(f"--push {name}: {reason}", "the same command tries again") from error
    except OfflineModeIsEnabled as error:
        raise InputError("the hub is switched off here", "unset HF_HUB_OFFLINE") from error
    except OSError as error:  # no network
        raise FtlabError(f"--push {name}: {redact(str(error) or repr(error)).splitlines()[0]}",
                         "the same command tries again") from error
    return str(made)
