"""Files of the Hugging Face hub: from its local cache, or downloaded if it answers soon.

``hf_hub_download`` alone asks the hub also for what it has in its cache, and retries for half a
minute where there is no network.
"""

import logging
import os
from pathlib import Path
from threading import Thread

from cuvler.download.errors import FetchError

logger = logging.getLogger(__name__)

_WAIT = 3  # seconds; HF_HUB_ETAG_TIMEOUT, the hub's own setting, overrides it


def fetch_from_hub(repository: str, name: str) -> Path:
    """Return the local path of a file of the hub, downloaded if the hub's cache lacks it.

    Raises:
        FetchError: the hub has no such file, cannot be reached, or does not answer within three
            seconds (``HF_HUB_ETAG_TIMEOUT``).
    """
    import huggingface_hub

    # They log each request, and each retry twice; the final error is in the exception.
    for library in ("huggingface_hub", "httpx", "httpx2"):
        logging.getLogger(library).setLevel(logging.ERROR)
    cached = huggingface_hub.try_to_load_from_cache(repository, name)
    if isinstance(cached, str):
        return Path(cached)
    _require_answer(huggingface_hub.hf_hub_url(repository, name))
    logger.info("fetching %s from the Hugging Face hub", repository)
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except Exception as error:  # its HTTP library, and so its errors, differ between versions
        # Its own message, "please check your connection", hides what the hub has answered.
        raise FetchError(_reason(error.__cause__ or error)) from error


def _require_answer(url: str) -> None:
    """Check that the hub answers; in a thread, because nothing limits the time of DNS look-ups."""
    wait = _wait()
    errors: list[Exception] = []
    thread = Thread(target=_ask, args=(url, wait, errors), daemon=True)
    thread.start()
    thread.join(wait)
    if thread.is_alive():
        raise FetchError(f"no answer within {wait:g} s; HF_HUB_ETAG_TIMEOUT=30 waits longer")
    if errors:
        raise FetchError(_reason(errors[0])) from errors[0]


def _ask(url: str, wait: float, errors: list[Exception]) -> None:
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(url, timeout=wait + 1)  # the waiting thread gives up first
    except HfHubHTTPError:
        pass  # An answer; the download says what is wrong.
    except Exception as error:  # noqa: BLE001 (raised by the thread that waits)
        errors.append(error)


def _wait() -> float:
    from huggingface_hub import constants

    return constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else _WAIT


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
