"""Every setting: typed, read from the environment or `.env`, checked once at start."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from yolo_backend.errors import UserError
from yolo_backend.messages import shortened

# A body as bytes and as Python objects: 2.0 times its length for `data:` addresses, 7.3 for boxes (measured).
BODY_COSTS = 8

_SUFFIXES = (".pt", ".onnx")
_QUOTES = frozenset("\"'`\u2018\u2019\u201c\u201d")
_WITHOUT_SCHEME = re.compile(r"[a-z0-9.-]+(:\d{1,5})?(/[\w./-]*)?", re.ASCII | re.IGNORECASE)
_PAGE = re.compile(r"/(projects(/\d+(/.*)?)?|user/login|user/account(/.*)?|api(/.*)?|organization)/?$")


class SettingsError(UserError):
    """A setting that can't be used; the message names the variable and says what it should be."""


def _names(*variables: str) -> AliasChoices:
    return AliasChoices(*variables)


class Settings(BaseSettings):
    """The backend's settings. An empty variable counts as unset, as Docker's env files write them."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True,
        populate_by_name=True, allow_inf_nan=False,
    )  # fmt: skip

    label_studio_url: str | None = Field(None, validation_alias=_names("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"))
    label_studio_host: str | None = Field(None, validation_alias="LABEL_STUDIO_HOST")
    label_studio_api_key: SecretStr | None = Field(
        None, validation_alias=_names("LABEL_STUDIO_API_KEY", "LABEL_STUDIO_TOKEN", "LABEL_STUDIO_ACCESS_TOKEN")
    )

    model_class: str = Field("yolo_backend.model:YoloBackend", validation_alias="MODEL_CLASS")
    model_name: str = Field("yolo26n.pt", validation_alias=_names("MODEL_NAME", "YOLO_MODEL"))
    model_root: Path = Field(Path("models"), validation_alias="MODEL_ROOT")
    model_dir: Path = Field(Path("data"), validation_alias="MODEL_DIR")
    model_score_threshold: float = Field(0.25, ge=0, le=1, validation_alias="MODEL_SCORE_THRESHOLD")
    model_iou_threshold: float = Field(0.7, ge=0, le=1, validation_alias="MODEL_IOU_THRESHOLD")
    model_image_size: int | None = Field(None, ge=32, le=8192, validation_alias="MODEL_IMAGE_SIZE")
    model_max_detections: int = Field(300, ge=1, le=10_000, validation_alias="MODEL_MAX_DETECTIONS")
    max_models: int = Field(3, ge=1, validation_alias="MAX_MODELS")
    device: str = Field("auto", validation_alias="DEVICE")
    engine: Literal["auto", "torch", "onnx", "openvino", "tensorrt"] = Field("auto", validation_alias="ENGINE")
    batch_size: int | None = Field(None, ge=1, le=1024, validation_alias="BATCH_SIZE")
    detect_timeout_s: float = Field(120, gt=0, validation_alias="DETECT_TIMEOUT_SECONDS")
    training: Literal["off", "on"] = Field("off", validation_alias="TRAINING")
    train_minutes: float = Field(30, gt=0, validation_alias="TRAIN_MINUTES")

    basic_auth_user: str | None = Field(None, validation_alias="BASIC_AUTH_USER")
    basic_auth_pass: SecretStr | None = Field(None, validation_alias="BASIC_AUTH_PASS")

    predict_deadline_s: float = Field(50, ge=0, validation_alias="PREDICT_DEADLINE_SECONDS")
    local_files_document_root: Path | None = Field(None, validation_alias="LOCAL_FILES_DOCUMENT_ROOT")
    label_studio_media_root: Path | None = Field(None, validation_alias="LABEL_STUDIO_MEDIA_ROOT")
    requests_ca_bundle: Path | None = Field(None, validation_alias="REQUESTS_CA_BUNDLE")
    allowed_image_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), validation_alias="ALLOWED_IMAGE_HOSTS"
    )
    image_timeout_s: float = Field(30, gt=0, validation_alias="IMAGE_TIMEOUT_SECONDS")
    max_image_megabytes: float = Field(100, gt=0, validation_alias="MAX_IMAGE_MEGABYTES")
    max_image_megapixels: float = Field(150, gt=0, validation_alias="MAX_IMAGE_MEGAPIXELS")
    decode: Literal["full", "fast"] = Field("full", validation_alias="DECODE")
    cache_megabytes: float = Field(64, ge=0, validation_alias="CACHE_MEGABYTES")
    max_request_megabytes: float = Field(256, gt=0, validation_alias="MAX_REQUEST_MEGABYTES")
    max_held_megabytes: float | None = Field(None, gt=0, validation_alias="MAX_HELD_MEGABYTES")

    port: int = Field(9090, ge=1, le=65535, validation_alias="PORT")
    workers: int = Field(1, ge=1, validation_alias="WORKERS")
    threads: int = Field(8, ge=4, validation_alias="THREADS")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias="LOG_LEVEL")

    @property
    def basic_auth(self) -> tuple[str, str] | None:
        """The login that callers of the backend must give, user and password."""
        if not self.basic_auth_user or not self.basic_auth_pass:
            return None
        return self.basic_auth_user, self.basic_auth_pass.get_secret_value()

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names in MODEL_NAME, one mostly. A comma is a part of a name, unless names of weights are around it."""
        names = _entries(self.model_name)
        return tuple(dict.fromkeys(names)) if names and all(map(_is_of_weights, names)) else (self.model_name,)

    @property
    def max_held_bytes(self) -> int:
        """What bodies, waiting tasks and kept results may take; one allowed body has room when nothing is held."""
        return int((self.max_held_megabytes or BODY_COSTS * self.max_request_megabytes) * 1e6)

    @property
    def outside_url(self) -> str | None:
        """Label Studio's address in a browser, where it is set beside the one that we reach; one alone says nothing."""
        host = self.label_studio_host and studio_address(self.label_studio_host)
        return host if host != self.label_studio_url else None

    @field_validator("label_studio_url")
    @classmethod
    def _check_label_studio_url(cls, url: str | None) -> str | None:
        return None if url is None else studio_address(url)

    @field_validator("label_studio_api_key", "model_name", mode="before")
    @classmethod
    def _strip(cls, text: Any) -> Any:
        # Secrets that come from files often end in a newline, and names in a space that nobody sees.
        return text.strip() if isinstance(text, str) else text

    @field_validator("model_name")
    @classmethod
    def _check_names(cls, text: str) -> str:
        names = _entries(text)
        # Of one name with a comma in it, only the end may be that of a file.
        if any(name.endswith(_SUFFIXES) for name in names[:-1]):
            for name in names:
                if not _is_of_weights(name):
                    raise ValueError(f'lists "{name}", which ends neither in .pt nor in .onnx: write the whole name')
        return text

    @field_validator("label_studio_api_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None:
            return None
        token = key.get_secret_value()
        _check_unquoted(token)
        if prefix := re.match(r"(Token|Bearer)[\s:]", token, re.IGNORECASE):
            raise ValueError(f'should be the token alone, without "{prefix[1]}" before it')
        if not is_sendable(token):
            raise ValueError("should be letters, digits and dots, as Label Studio shows it: no spaces")
        return key

    @field_validator("requests_ca_bundle")
    @classmethod
    def _check_bundle(cls, path: Path | None) -> Path | None:
        try:
            is_there = path is None or path.exists()
        except OSError:  # such as the text of a certificate in place of its name
            is_there = False
        if not is_there:
            raise ValueError("should name a PEM file of certificates that is there and may be read")
        return path

    @field_validator("allowed_image_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, hosts: Any) -> Any:
        if isinstance(hosts, str):
            return frozenset(_host(host.strip()) for host in hosts.split(",") if host.strip())
        return hosts

    @field_validator("training", mode="before")
    @classmethod
    def _lowercase(cls, switch: Any) -> Any:
        return switch.strip().lower() if isinstance(switch, str) else switch

    @field_validator("log_level", mode="before")
    @classmethod
    def _uppercase(cls, level: Any) -> Any:
        return level.upper() if isinstance(level, str) else level

    @model_validator(mode="after")
    def _check_pairs(self) -> Settings:
        if self.label_studio_api_key and not self.label_studio_url:
            raise ValueError("LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL: set the URL, too")
        if self.label_studio_media_root and not self.label_studio_url:
            raise ValueError("LABEL_STUDIO_MEDIA_ROOT is set without LABEL_STUDIO_URL: set the URL, too")
        if bool(self.basic_auth_user) != bool(self.basic_auth_pass):
            raise ValueError("BASIC_AUTH_USER and BASIC_AUTH_PASS go together: set both or neither")
        least = BODY_COSTS * self.max_request_megabytes
        if self.max_held_megabytes and self.max_held_megabytes < least:
            raise ValueError(
                f"MAX_HELD_MEGABYTES should be at least {least:g}, {BODY_COSTS} times MAX_REQUEST_MEGABYTES: "
                "raise the one or lower the other"
            )
        if self.label_studio_host:  # here, for alone it is checked as the URL
            try:
                studio_address(self.label_studio_host)
            except ValueError as error:
                raise ValueError(f"LABEL_STUDIO_HOST: {error}") from None
        return self


def _entries(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _is_of_weights(name: str) -> bool:
    return name == "demo" or name.endswith(_SUFFIXES)


def split_web_address(url: str) -> SplitResult | None:
    """The parts of an http(s) address, None for what is none."""
    try:
        parts = urlsplit(url)
        return parts if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def studio_address(url: str) -> str:
    """An address of Label Studio's, without a slash at its end. Raises ValueError for what can't be one."""
    url = url.strip()
    _check_unquoted(url)
    if _WITHOUT_SCHEME.fullmatch(url):
        raise ValueError(f"should begin with http:// or https://, as http://{url}")
    parts = split_web_address(url)
    if parts is None:
        raise ValueError("should look like http://label-studio:8080")
    if parts.username or parts.password:
        raise ValueError("should be an address only, without a login")
    # What a person copies from the address line, or from a guide to the API.
    if page := _PAGE.search(parts.path):
        netloc = parts.netloc + parts.path[: page.start()]
        raise ValueError(f"should be Label Studio's own address, not that of a page: {parts.scheme}://{netloc}")
    if parts.query or parts.fragment:
        raise ValueError("should be an address only, without a query or a fragment")
    return url.rstrip("/")


def _check_unquoted(value: str) -> None:
    """Raises ValueError for quotes, which env files of Docker keep, and people copy."""
    if value[:1] in _QUOTES or value[-1:] in _QUOTES:
        raise ValueError("has quotes around it: leave them out")


def _host(entry: str) -> str:
    """A host as an image's address names it, an IPv6 address in brackets. Raises ValueError for more than a host."""
    _check_unquoted(entry)
    entry = f"[{entry}]" if _is_ipv6(entry) else entry
    if entry.isascii() and not re.fullmatch(r"[\w.-]+|\[[0-9a-f:.]+\]", entry, re.IGNORECASE):
        found = re.match(r"(?:\w+://)?([a-z0-9][\w.-]*)(?::\d+)?(?:/\D.*)?$", entry, re.ASCII | re.IGNORECASE)
        meant = f": {found[1]}" if found else ""
        raise ValueError(f"should be names of hosts, without scheme, port, path or *, with commas between them{meant}")
    try:
        host = parse_url(f"//{entry}").host  # as addresses are read, in whose hosts there are no umlauts
    except LocationParseError:
        host = None
    return (host or entry).lower()


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def is_sendable(token: str) -> bool:
    """May this token stand in an HTTP header?"""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


def setting_variables() -> set[str]:
    """The environment variables of all settings."""
    return {variable for field in Settings.model_fields for variable in _variables(field)}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment and `.env`; `overrides` go by field name.

    Raises SettingsError, in one line, without the value of a secret.
    """
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(dict(problem)) for problem in error.errors())) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{Path('.env').absolute()} isn't text in UTF-8: save it as that") from None
    except OSError as error:
        raise SettingsError(f"{Path('.env').absolute()} can't be read: {error.strerror}") from None
    if settings.requests_ca_bundle:
        # requests looks for it in the environment alone.
        os.environ["REQUESTS_CA_BUNDLE"] = str(settings.requests_ca_bundle)
    return settings


def _explain(problem: dict[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    variables = _variables(str(problem["loc"][0]))
    # An address may hold a login.
    secret = any(word in variables[0] for word in ("KEY", "PASS", "URL")) or "@" in str(problem["input"])
    return f"{' or '.join(variables)}: {message}" + (
        "" if secret else f", not {shortened(repr(str(problem['input'])))}"
    )


def _variables(field_or_variable: str) -> list[str]:
    """All the names of the setting that goes by this field name or variable."""
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]
        if field_or_variable in {name, *names}:
            return names
    return [field_or_variable]
