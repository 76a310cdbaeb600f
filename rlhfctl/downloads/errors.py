"""Errors of the Hub's client as errors for users."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rlhfctl.data.hub import UNREACHABLE, offline
from rlhfctl.errors import EnvironmentFault
from rlhfctl.recipe.offline import OFFLINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlhfctl.downloads.needs import Repository


class NoAccessError(EnvironmentFault):
    """The repository is gated, private, or does not exist."""


class UnreachableError(EnvironmentFault):
    """The Hub did not answer."""


@contextmanager
def hub_requests(repository: Repository, endpoint: str) -> Iterator[None]:
    """Ask the Hub within the context.

    Args:
        repository: What is asked for.
        endpoint: Address of the Hub, for the page of a gated repository.

    Raises:
        NoAccessError: The repository is gated, private, or does not exist.
        UnreachableError: The Hub cannot be reached.
        EnvironmentFault: It refused for another reason.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{endpoint}/{'datasets/' if repository.is_data else ''}{repository.id}"
    try:
        yield
    except GatedRepoError as error:
        raise NoAccessError(
            "is gated, and this machine's token has no access",
            repository.where,
            f"Accept its licence at {page}, then run `hf auth login`.",
        ) from error
    except RepositoryNotFoundError as error:
        raise NoAccessError(
            "is not on the Hub, or is private",
            repository.where,
            "Check the id; run `hf auth login` if it is private.",
        ) from error
    except RevisionNotFoundError as error:
        raise EnvironmentFault(
            f"has no revision {repository.revision}",
            repository.where,
            f"Its branches and tags are listed at {page}/tree/main.",
        ) from error
    except HFValidationError as error:
        raise EnvironmentFault(
            "is neither a folder that exists nor the id of a repository on the Hub",
            repository.where,
            "Name a folder written by save_pretrained, a Hub id, or embedded.",
        ) from error
    except Exception as error:
        names = {kind.__name__ for kind in type(error).__mro__}
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            status = error.response.status_code
            raise EnvironmentFault(
                f"the Hub answered with status {status}",
                repository.where,
                f"Try again later; {endpoint} was asked.",
            ) from error
        if not names & UNREACHABLE:
            raise
        raise UnreachableError(
            f"the Hub cannot be reached at {endpoint}",
            repository.where,
            "Check the connection, or set HF_ENDPOINT to a mirror.",
        ) from error


def require_online(repositories: Sequence[Repository]) -> None:
    """Refuse a download in offline mode.

    Raises:
        EnvironmentFault: A variable sets the Hub's libraries offline.
    """
    if offline():
        raise EnvironmentFault(
            f"the recipe needs {', '.join(one.id for one in repositories)} from the Hub, and "
            "offline mode allows no connection",
            hint=f"Unset {OFFLINE}, HF_HUB_OFFLINE, HF_DATASETS_OFFLINE and TRANSFORMERS_OFFLINE.",
        )
