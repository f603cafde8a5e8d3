"""What a training is told, and by which way."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from yolo_backend.settings import load_settings
from yolo_backend.training.launch import Order, _secrets, _told_settings, settings_of
from yolo_backend.training.records import Options

TOKEN = "0123456789abcdef0123456789abcdef01234567"


def test_the_child_has_the_settings_of_its_parent_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where the command line said something else than the environment does."""
    settings = load_settings(
        label_studio_url="http://here:8080",
        label_studio_api_key=TOKEN,
        model_root=tmp_path,
        allowed_image_hosts=frozenset({"a.example", "b.example"}),
        basic_auth_user="me",
        basic_auth_pass="pass word",
        device="cpu",
    )
    order = Order(7, Options("demo", 1), _told_settings(settings), cores=(0, 1))
    line = msgspec.json.encode(order)
    assert TOKEN.encode() not in line
    assert b"pass word" not in line
    for variable, value in _secrets(settings).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://elsewhere:8080")
    monkeypatch.setenv("MODEL_NAME", "other.pt")
    told = settings_of(msgspec.json.decode(line, type=Order))
    assert told == settings
    assert told.label_studio_api_key
    assert told.label_studio_api_key.get_secret_value() == TOKEN


def test_a_secret_that_isn_t_set_is_none_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    for variable, value in _secrets(settings).items():
        monkeypatch.setenv(variable, value)
    assert settings_of(Order(7, Options("demo", 1), _told_settings(settings))).label_studio_api_key is None
