"""Why an image or a task can't be had, by a short name: each with what to do about it.

A new kind is one line here: its name in the metrics, in JSON and on the status page, and the advice beside it.
"""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    """A kind of failure; `advice` tells a person what to do about it. As text it is its name in metrics and JSON."""

    advice: str

    def __new__(cls, name: str, advice: str = "") -> FailureKind:
        """A member whose value is `name`; the advice has a default for FailureKind(name), which looks a member up."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.advice = advice
        return kind

    BAD_ADDRESS = ("bad_address", "Correct the address in the task's data.")
    BROKEN = ("broken", "Replace the file: it is damaged or cut short.")
    DETECTOR = ("detector", "The model failed on this image: the backend's log says why. Check MODEL_NAME and DEVICE.")
    DNS = (
        "dns",
        "Check the host's name in the address, and that the backend's machine or container can look it up. "
        "Where only a proxy can, name the host in ALLOWED_IMAGE_HOSTS.",
    )
    EMPTY = ("empty", "Replace the file: it was stored without content.")
    FORBIDDEN_ADDRESS = (
        "forbidden_address",
        "If you trust that host, name it in ALLOWED_IMAGE_HOSTS (names without a scheme, commas "
        "between them) and restart the backend.",
    )
    HTTP_ERROR = ("http_error", "Look into that server's log, or wait until it has recovered.")
    INTERNAL = ("internal", "A fault of the backend: its log has the details. Please report it.")
    LABEL_STUDIO = (
        "label_studio",
        "Check LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY: the address as the backend reaches it, "
        "and a token that Label Studio accepts.",
    )
    LABELS = (
        "labels",
        "Give the task labels that are classes of the weights, in the field that the control's value names.",
    )
    MISSING_KEY = (
        "missing_key",
        "Give the task's data the field that the labeling config's Image names, or correct that name.",
    )
    NO_LABEL_STUDIO = ("no_label_studio", "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY and restart the backend.")
    NOT_AN_IMAGE = (
        "not_an_image",
        "Do what the message says. Where it doesn't say what the file is, open the address: "
        "it should lead to a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF.",
    )
    NOT_FOUND = ("not_found", "Put the image back where the address says, or correct the address in the task's data.")
    OTHER_LABEL_STUDIO = (
        "other_label_studio",
        "Set LABEL_STUDIO_HOST to Label Studio's address in a browser and restart the backend, "
        "or correct the address in the task's data.",
    )
    PROXY = ("proxy", "Correct HTTP_PROXY, HTTPS_PROXY or NO_PROXY in the backend's environment, and restart it.")
    REDIRECTS = (
        "redirects",
        "Open the address in a browser: it leads in circles, often to a login. Take the final one.",
    )
    REJECTED = (
        "rejected",
        "If the task was deleted, do nothing. If the labels were changed, use Retrieve Predictions again.",
    )
    TIMEOUT = (
        "timeout",
        "Look whether the image's server is slow or cut off; IMAGE_TIMEOUT_SECONDS gives it more time.",
    )
    TLS = (
        "tls",
        "Renew that server's certificate, or have the backend trust its authority: REQUESTS_CA_BUNDLE names a PEM "
        "file of all authorities that it trusts.",
    )
    TOO_LARGE = ("too_large", "Make the image smaller, or raise MAX_IMAGE_MEGABYTES.")
    TOO_MANY_PIXELS = ("too_many_pixels", "Make the image smaller, or raise MAX_IMAGE_MEGAPIXELS.")
    UNAUTHORIZED = (
        "unauthorized",
        "If Label Studio serves the image, check LABEL_STUDIO_API_KEY. If not, make it readable without a login, or "
        "use a presigned address.",
    )
    UNREACHABLE = (
        "unreachable",
        "Check that the image's server runs, and that the backend's machine or container can reach it.",
    )
    UNREADABLE = ("unreadable", "Let the backend's user read the files below LOCAL_FILES_DOCUMENT_ROOT.")
    UNSUPPORTED = (
        "unsupported",
        "Give the task an http(s) or data: address, a path of Label Studio, or a bucket that it presigns.",
    )
    WEIGHTS = ("weights", "Check the control's model_path, and that this file is in MODEL_ROOT.")
    WRONG_TYPE = (
        "wrong_type",
        "Give the task's data the image's address, as text, in the field that the labeling config names.",
    )
