"""Settings: typed, from the environment, and loud about what can't be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from yolo_backend.settings import SettingsError, load_settings

pytestmark = pytest.mark.usefixtures("clean_environment")

SECRET = "s3cr3t-0123456789"


def failure() -> str:
    with pytest.raises(SettingsError) as raised:
        load_settings()
    return str(raised.value)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("label_studio_url", None),
        ("label_studio_api_key", None),
        ("model_name", "yolo26n.pt"),
        ("model_root", Path("models")),
        ("model_dir", Path("data")),
        ("model_score_threshold", 0.25),
        ("model_iou_threshold", 0.7),
        ("model_image_size", None),
        ("model_max_detections", 300),
        ("device", "auto"),
        ("engine", "auto"),
        ("batch_size", None),
        ("detect_timeout_s", 120),
        ("basic_auth_user", None),
        ("basic_auth_pass", None),
        ("predict_deadline_s", 50),
        ("local_files_document_root", None),
        ("allowed_image_hosts", frozenset()),
        ("decode", "full"),
        ("cache_megabytes", 64),
        ("port", 9090),
        ("workers", 1),
        ("threads", 8),
        ("log_level", "INFO"),
    ],
)
def test_defaults_are_those_of_the_readme(field: str, expected: object) -> None:
    assert getattr(load_settings(), field) == expected


@pytest.mark.parametrize(
    ("variable", "text", "field", "expected"),
    [
        ("LABEL_STUDIO_URL", "http://studio:8080", "label_studio_url", "http://studio:8080"),
        ("LABEL_STUDIO_URL", "https://studio.example/labels/", "label_studio_url", "https://studio.example/labels"),
        ("LABEL_STUDIO_HOST", "http://studio:8080/", "label_studio_url", "http://studio:8080"),
        ("MODEL_NAME", "mine.pt", "model_name", "mine.pt"),
        ("YOLO_MODEL", "mine.pt", "model_name", "mine.pt"),
        ("MODEL_ROOT", "weights", "model_root", Path("weights")),
        ("MODEL_DIR", "cache", "model_dir", Path("cache")),
        ("MODEL_SCORE_THRESHOLD", "0.1", "model_score_threshold", 0.1),
        ("MODEL_SCORE_THRESHOLD", "0", "model_score_threshold", 0.0),
        ("MODEL_SCORE_THRESHOLD", "1", "model_score_threshold", 1.0),
        ("MODEL_IOU_THRESHOLD", "0.45", "model_iou_threshold", 0.45),
        ("MODEL_IMAGE_SIZE", "1280", "model_image_size", 1280),
        ("MODEL_MAX_DETECTIONS", "1000", "model_max_detections", 1000),
        ("DEVICE", "cuda:0", "device", "cuda:0"),
        ("DETECT_TIMEOUT_SECONDS", "2.5", "detect_timeout_s", 2.5),
        ("PREDICT_DEADLINE_SECONDS", "0", "predict_deadline_s", 0.0),
        ("LOCAL_FILES_DOCUMENT_ROOT", "/files", "local_files_document_root", Path("/files")),
        ("ALLOWED_IMAGE_HOSTS", " minio, NAS.local ,,", "allowed_image_hosts", frozenset({"minio", "nas.local"})),
        ("PORT", "9091", "port", 9091),
        ("WORKERS", "2", "workers", 2),
        ("THREADS", "16", "threads", 16),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(load_settings(), field) == expected


@pytest.mark.parametrize("variable", ["LABEL_STUDIO_API_KEY", "LABEL_STUDIO_TOKEN", "LABEL_STUDIO_ACCESS_TOKEN"])
def test_the_key_has_three_names_and_is_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    monkeypatch.setenv(variable, SECRET)
    settings = load_settings()
    assert settings.label_studio_api_key is not None
    assert settings.label_studio_api_key.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())


@pytest.mark.parametrize(
    ("first", "second"), [("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"), ("LABEL_STUDIO_HOST", "LABEL_STUDIO_URL")]
)
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, first: str, second: str) -> None:
    monkeypatch.setenv(first, "")
    monkeypatch.setenv(second, "http://studio:8080")
    assert load_settings().label_studio_url == "http://studio:8080"


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("LABEL_STUDIO_URL", "label_studio_url"),
        ("LABEL_STUDIO_API_KEY", "label_studio_api_key"),
        ("MODEL_NAME", "model_name"),
        ("MODEL_SCORE_THRESHOLD", "model_score_threshold"),
        ("MODEL_IMAGE_SIZE", "model_image_size"),
        ("BASIC_AUTH_USER", "basic_auth_user"),
        ("BASIC_AUTH_PASS", "basic_auth_pass"),
        ("LOCAL_FILES_DOCUMENT_ROOT", "local_files_document_root"),
        ("ALLOWED_IMAGE_HOSTS", "allowed_image_hosts"),
        ("PORT", "port"),
        ("LOG_LEVEL", "log_level"),
    ],
)
def test_an_empty_variable_leaves_the_default(monkeypatch: pytest.MonkeyPatch, variable: str, field: str) -> None:
    default = getattr(load_settings(), field)
    monkeypatch.setenv(variable, "")
    assert getattr(load_settings(), field) == default


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LABEL_STUDIO_URL", "studio:8080"),
        ("LABEL_STUDIO_URL", "ftp://studio"),
        ("LABEL_STUDIO_URL", "http://"),
        ("LABEL_STUDIO_URL", "http://[studio"),
        ("LABEL_STUDIO_URL", "http://studio:port"),
        ("LABEL_STUDIO_URL", "http://studio:99999"),
        ("LABEL_STUDIO_URL", "http://studio/?a=b"),
        ("LABEL_STUDIO_HOST", "studio:8080"),
        ("MODEL_SCORE_THRESHOLD", "much"),
        ("MODEL_SCORE_THRESHOLD", "-0.1"),
        ("MODEL_SCORE_THRESHOLD", "1.1"),
        ("MODEL_SCORE_THRESHOLD", "nan"),
        ("MODEL_SCORE_THRESHOLD", "0,5"),
        ("MODEL_IOU_THRESHOLD", "2"),
        ("MODEL_IMAGE_SIZE", "0"),
        ("MODEL_IMAGE_SIZE", "640x480"),
        ("MODEL_MAX_DETECTIONS", "0"),
        ("MODEL_MAX_DETECTIONS", "1.5"),
        ("MAX_MODELS", "0"),
        ("BATCH_SIZE", "0"),
        ("DETECT_TIMEOUT_SECONDS", "0"),
        ("DETECT_TIMEOUT_SECONDS", "inf"),
        ("PREDICT_DEADLINE_SECONDS", "-1"),
        ("PREDICT_DEADLINE_SECONDS", "inf"),
        ("IMAGE_TIMEOUT_SECONDS", "0"),
        ("IMAGE_TIMEOUT_SECONDS", "inf"),
        ("MAX_IMAGE_MEGABYTES", "nan"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("WORKERS", "0"),
        ("THREADS", "1"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_LEVEL", "two\nlines"),
    ],
)
def test_a_bad_value_stops_in_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    message = failure()
    assert variable in message
    assert message.isprintable()


def test_several_bad_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("WORKERS", "many")
    message = failure()
    assert "PORT" in message
    assert "WORKERS" in message
    assert message.isprintable()


@pytest.mark.parametrize("variable", ["LABEL_STUDIO_API_KEY", "LABEL_STUDIO_TOKEN", "LABEL_STUDIO_ACCESS_TOKEN"])
def test_a_key_without_an_address_stops(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, SECRET)
    message = failure()
    assert "LABEL_STUDIO_URL" in message
    assert "LABEL_STUDIO_API_KEY" in message
    assert SECRET not in message


def test_a_key_from_a_file_may_end_in_a_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", f" {SECRET}\n")
    key = load_settings().label_studio_api_key
    assert key is not None
    assert key.get_secret_value() == SECRET


@pytest.mark.parametrize("key", [f"{SECRET} {SECRET}", f"{SECRET}\n{SECRET}", f"{SECRET}ü"])
def test_a_key_that_no_header_can_hold_stops(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    message = failure()
    assert "LABEL_STUDIO_API_KEY" in message
    assert SECRET not in message


@pytest.mark.parametrize("variable", ["BASIC_AUTH_USER", "BASIC_AUTH_PASS"])
def test_half_a_login_stops(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, SECRET)
    message = failure()
    assert "BASIC_AUTH_USER" in message
    assert "BASIC_AUTH_PASS" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "environment",
    [
        {"LABEL_STUDIO_URL": f"http://someone:{SECRET}@studio:8080"},
        {"LABEL_STUDIO_URL": f"http://studio:8080/?token={SECRET}"},
        {"LABEL_STUDIO_URL": f"http://studio:8080/#{SECRET}"},
        {"LABEL_STUDIO_HOST": f"someone:{SECRET}@studio:8080"},
        {"LABEL_STUDIO_API_KEY": SECRET, "PORT": "0"},
        {"BASIC_AUTH_USER": "someone", "BASIC_AUTH_PASS": SECRET, "PORT": "0"},
    ],
)
def test_no_message_holds_a_secret(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for variable, text in environment.items():
        monkeypatch.setenv(variable, text)
    assert SECRET not in failure()


def test_the_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("MODEL_NAME=größer.pt\nPORT=9091\nWORKERS=\nNO_SETTING_OF_OURS=1\n", encoding="utf-8")
    monkeypatch.setenv("PORT", "9092")
    settings = load_settings()
    assert (settings.model_name, settings.port, settings.workers) == ("größer.pt", 9092, 1)


def test_a_bad_value_in_the_env_file_names_the_variable() -> None:
    Path(".env").write_text("THREADS=some\n", encoding="utf-8")
    assert "THREADS" in failure()


def test_overrides_go_by_field_name_and_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "environment.pt")
    assert load_settings(model_name="override.pt").model_name == "override.pt"


def test_a_bad_override_names_the_variable() -> None:
    with pytest.raises(SettingsError, match="BATCH_SIZE"):
        load_settings(batch_size=0)


def test_settings_do_not_change() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 1


@pytest.mark.parametrize("name", ["best.pt ", " best.pt", "best.pt\n", "\tbest.pt\r\n"])
def test_spaces_around_the_name_of_weights_do_not_matter(clean_environment: pytest.MonkeyPatch, name: str) -> None:
    clean_environment.setenv("MODEL_NAME", name)
    assert load_settings().model_name == "best.pt"
