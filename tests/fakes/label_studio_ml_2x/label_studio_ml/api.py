"""The server of label-studio-ml 2.x, as far as a model class can tell."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, jsonify, request

from .model import LabelStudioMLBase


def init_app(model_class: type[LabelStudioMLBase]) -> Flask:
    app = Flask(__name__)

    def project_id(body: dict[str, Any]) -> str:
        return str(body["project"]).split(".", 1)[0]

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="UP")

    @app.post("/setup")
    def setup() -> Response:
        body = request.get_json()
        model = model_class(project_id=project_id(body), label_config=body["schema"])
        return jsonify(model_version=model.get("model_version"))

    @app.post("/predict")
    def predict() -> Response:
        body = request.get_json()
        params = dict(body.get("params") or {})
        context = params.pop("context", {})
        model = model_class(project_id=project_id(body), label_config=body["label_config"])
        return jsonify(results=model.predict(body["tasks"], context=context, **params))

    @app.post("/webhook")
    def webhook() -> tuple[Response, int]:
        body = request.get_json()
        project = body["project"]
        model = model_class(str(project["id"]), label_config=project["label_config"])
        return jsonify(result=model.fit(body.pop("action"), body), status="ok"), 201

    return app
