"""Settings: typed, from the environment, and loud about what can't be."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from yolo_backend.cli.common import read_settings
from yolo_backend.settings import Settings, SettingsError, load_settings

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
        ("training", "off"),
        ("train_minutes", 30),
        ("basic_auth_user", None),
        ("basic_auth_pass", None),
        ("predict_deadline_s", 50),
        ("local_files_document_root", None),
        ("label_studio_media_root", None),
        ("allowed_image_hosts", frozenset()),
        ("requests_ca_bundle", None),
        ("image_timeout_s", 30),
        ("max_image_megabytes", 100),
        ("max_image_megapixels", 150),
        ("decode", "full"),
        ("cache_megabytes", 64),
        ("max_request_megabytes", 256),
        ("max_held_megabytes", None),
        ("max_held_bytes", 2_048_000_000),
        ("port", 9090),
        ("workers", 1),
        ("threads", 8),
        ("log_level", "INFO"),
    ],
)
def test_defaults_are_those_of_the_readme(field: str, expected: object) -> None:
    assert getattr(load_settings(), field) == expected


def test_the_page_of_settings_says_each_number() -> None:
    told: dict[str, str] = {}
    for line in (Path(__file__).parents[2] / "docs" / "settings.md").read_text().splitlines():
        if line.startswith("| `"):
            names, defaults = line.split("|")[1:3]
            told.update(zip(re.findall(r"`(\w+)`", names), defaults.strip().split(", "), strict=False))
    numbers = {
        str(field.validation_alias): field.default
        for field in Settings.model_fields.values()
        if isinstance(field.default, int | float)
    }
    assert len(numbers) >= 15
    assert {name: float(told[name]) for name in numbers} == numbers


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
    ("url", "host", "expected"),
    [
        ("http://studio:8080", "https://labels.example/studio/", "https://labels.example/studio"),
        ("http://studio:8080/", "http://studio:8080", None),
        ("", "https://labels.example", None),  # where it is reached, perhaps not as a browser does
        ("http://studio:8080", "", None),
        ("http://studio:8080", " https://labels.example/studio/ ", "https://labels.example/studio"),
    ],
)
def test_label_studios_host_beside_its_url_is_its_address_outside(
    monkeypatch: pytest.MonkeyPatch, url: str, host: str, expected: str | None
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_HOST", host)
    settings = load_settings()
    assert settings.outside_url == expected
    assert settings.label_studio_url == (url or host).rstrip("/")


def test_another_label_studio_on_the_command_line_has_not_the_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    monkeypatch.setenv("LABEL_STUDIO_HOST", "https://labels.example")
    assert read_settings().outside_url == "https://labels.example"
    assert read_settings("http://another:8080").outside_url is None


def test_the_folder_of_uploads_is_of_the_label_studio_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_MEDIA_ROOT", "/media")
    with pytest.raises(
        SettingsError, match=r"^LABEL_STUDIO_MEDIA_ROOT is set without LABEL_STUDIO_URL: set the URL, too"
    ):
        load_settings()
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    assert load_settings().label_studio_media_root == Path("/media")
    assert read_settings().label_studio_media_root == Path("/media")
    assert read_settings("http://another:8080").label_studio_media_root is None


@pytest.mark.parametrize("host", ["labels.example", "ftp://labels.example", f"https://me:{SECRET}@labels.example"])
def test_a_bad_host_beside_the_url_is_named(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    monkeypatch.setenv("LABEL_STUDIO_HOST", host)
    with pytest.raises(SettingsError, match=r"^LABEL_STUDIO_HOST: should ") as raised:
        load_settings()
    assert SECRET not in str(raised.value)


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
        ("LABEL_STUDIO_MEDIA_ROOT", "label_studio_media_root"),
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


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("LABEL_STUDIO_URL", "localhost:8080", "should begin with http:// or https://, as http://localhost:8080"),
        ("LABEL_STUDIO_URL", "studio/tools", "should begin with http:// or https://, as http://studio/tools"),
        ("LABEL_STUDIO_URL", "http:/studio", "should look like http://label-studio:8080"),
        ("LABEL_STUDIO_URL", '"http://studio"', "has quotes around it: leave them out"),
        ("LABEL_STUDIO_URL", "'http://studio'", "has quotes around it: leave them out"),
        (
            "LABEL_STUDIO_URL",
            f"http://localhost:8080/projects/3/data?tab=7&token={SECRET}",
            "should be Label Studio's own address, not that of a page: http://localhost:8080",
        ),
        (
            "LABEL_STUDIO_URL",
            "https://tools.example/label-studio/projects/3/settings/ml",
            "should be Label Studio's own address, not that of a page: https://tools.example/label-studio",
        ),
        (
            "LABEL_STUDIO_URL",
            "http://studio/api/",
            "should be Label Studio's own address, not that of a page: http://studio",
        ),
        (
            "LABEL_STUDIO_URL",
            "http://studio/user/login/?next=/",
            "should be Label Studio's own address, not that of a page: http://studio",
        ),
        ("ALLOWED_IMAGE_HOSTS", "minio:9000", "commas between them: minio, not 'minio:9000'"),
        ("ALLOWED_IMAGE_HOSTS", "nas,http://minio:9000/b", "commas between them: minio, not 'nas,http://minio:9000/b'"),
        ("ALLOWED_IMAGE_HOSTS", f"http://me:{SECRET}@minio", "commas between them"),
        ("ALLOWED_IMAGE_HOSTS", "nas;minio", "commas between them, not 'nas;minio'"),
        (
            "ALLOWED_IMAGE_HOSTS",
            "*.example",
            "path or *, with commas between them, not '*.example'",
        ),
        ("ALLOWED_IMAGE_HOSTS", "10.0.0.0/8", "commas between them, not '10.0.0.0/8'"),
        (
            "REQUESTS_CA_BUNDLE",
            "nowhere.pem",
            "a PEM file of certificates that is there and may be read, not 'nowhere.pem'",
        ),
    ],
)
def test_a_value_as_people_copy_it_is_told_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, told: str
) -> None:
    monkeypatch.setenv(variable, text)
    message = failure()
    assert message.startswith(variable)
    assert message.endswith(told)
    assert SECRET not in message


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (f'"{SECRET}"', "has quotes around it: leave them out"),
        (f"'{SECRET}'", "has quotes around it: leave them out"),
        (f"\u201c{SECRET}\u201d", "has quotes around it: leave them out"),
        (f"Token {SECRET}", 'should be the token alone, without "Token" before it'),
        (f"bearer {SECRET}", 'should be the token alone, without "bearer" before it'),
        (f"Token: {SECRET}", 'should be the token alone, without "Token" before it'),
        (f"{SECRET} {SECRET}", "should be letters, digits and dots, as Label Studio shows it: no spaces"),
    ],
)
def test_a_key_as_people_copy_it_is_told_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str, told: str) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    message = failure()
    assert message == f"LABEL_STUDIO_API_KEY or LABEL_STUDIO_TOKEN or LABEL_STUDIO_ACCESS_TOKEN: {told}"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("::1, nas", {"[::1]", "nas"}),
        ("[fd00::7]", {"[fd00::7]"}),
        ("gr\u00f6\u00dfe.example", {"xn--gre-6ka8i.example"}),
        ("my_nas.local.", {"my_nas.local."}),
    ],
)
def test_hosts_are_written_as_addresses_name_them(monkeypatch: pytest.MonkeyPatch, text: str, hosts: set[str]) -> None:
    monkeypatch.setenv("ALLOWED_IMAGE_HOSTS", text)
    assert load_settings().allowed_image_hosts == hosts


@pytest.mark.parametrize("prefix", ["", "/label-studio", "/my/api-studio", "/projects-of-ours"])
def test_a_path_prefix_is_no_page(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", f" https://studio.example{prefix}/ ")
    assert load_settings().label_studio_url == f"https://studio.example{prefix}"


def test_a_certificates_text_in_place_of_its_files_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "-----BEGIN CERTIFICATE-----\n" + "A" * 5000)
    assert failure().startswith("REQUESTS_CA_BUNDLE: should name a PEM file of certificates that is there and may be")


def test_an_empty_variable_does_not_hide_the_env_files_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ca.pem").touch()
    Path(".env").write_text("REQUESTS_CA_BUNDLE=ca.pem\n")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    assert load_settings().requests_ca_bundle == Path("ca.pem")
    assert os.environ["REQUESTS_CA_BUNDLE"] == "ca.pem"


def test_authorities_that_the_env_file_names_are_those_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ca.pem").touch()
    Path(".env").write_text("REQUESTS_CA_BUNDLE=ca.pem\n")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")  # so that it is put back
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert load_settings().requests_ca_bundle == Path("ca.pem")
    assert os.environ["REQUESTS_CA_BUNDLE"] == "ca.pem"


def test_an_env_file_of_another_encoding_is_told() -> None:
    Path(".env").write_bytes("MODEL_NAME=gr\u00f6\u00dfer.pt".encode("utf-16"))
    assert failure() == f"{Path('.env').absolute()} isn't text in UTF-8: save it as that"


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


@pytest.mark.parametrize(("text", "training"), [("on", "on"), ("ON ", "on"), ("Off", "off"), ("", "off")])
def test_training_is_on_or_off(clean_environment: pytest.MonkeyPatch, text: str, training: str) -> None:
    clean_environment.setenv("TRAINING", text)
    assert load_settings().training == training


@pytest.mark.parametrize(("variable", "text"), [("TRAINING", "yes"), ("TRAIN_MINUTES", "0"), ("TRAIN_MINUTES", "half")])
def test_a_training_that_cannot_be_is_told(clean_environment: pytest.MonkeyPatch, variable: str, text: str) -> None:
    clean_environment.setenv(variable, text)
    assert variable in failure()
