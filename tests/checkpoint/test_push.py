"""`bert-lamb push` against a server that answers as the hub does, with the hub's own client: the bytes that arrive.

Mutations that must turn it red: files of other kinds are sent, a dry run sends, a public repository for a private one.
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import numpy as np
import pytest
from huggingface_hub import close_session
from safetensors.numpy import save

from bert_lamb.cli import main as cli

FILES = {
    "README.md": b"---\nlibrary_name: transformers\n---\n# A model\n",
    "config.json": b'{"model_type": "bert"}\n',
    "model.safetensors": save({"bert.w": np.arange(2500, dtype=np.float32)}),
    "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n\u4e2d\n".encode(),
}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that one commit of small files needs (no LFS)."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.paths.append(self.path)
        if self.headers.get("Authorization") != "Bearer hf_secret":
            self.answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self.server.made = json.loads(body)
            self.answer(200, {"url": f"http://127.0.0.1:{self.server.server_port}/me/bert"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif self.path == "/api/models/me/bert/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self.answer(200, {"files": files})
        elif self.path == "/api/models/me/bert/commit/main":
            self.server.commit = [json.loads(line) for line in body.splitlines()]
            address = f"http://127.0.0.1:{self.server.server_port}/me/bert/commit/{'1' * 40}"
            self.answer(200, {"commitUrl": address, "commitOid": "1" * 40, "success": True})
        else:
            self.answer(404, {"error": self.path})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.paths, server.made, server.commit = [], None, None
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    close_session()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    close_session()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def push(hub, folder, *words):
    endpoint = f"endpoint=http://127.0.0.1:{hub.server_port}"
    return cli.main(["push", f"model_dir={folder}", "repo=me/bert", endpoint, *words])


def test_every_byte_arrives_in_one_commit(hub, folder, capsys):
    assert push(hub, folder) == 0
    head, *files = hub.commit
    assert {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in files} == FILES
    assert head["value"]["summary"] == "model, by bert-lamb push"
    assert (hub.made["name"], hub.made["organization"], hub.made["visibility"]) == ("bert", "me", "private")
    said = capsys.readouterr().out
    assert f"/me/bert/commit/{'1' * 40}" in said
    assert "hf_secret" not in said


def test_a_public_repository_and_a_message_when_asked_for(hub, folder):
    assert push(hub, folder, "private=false", "message='first one'") == 0
    assert hub.made["visibility"] == "public"
    assert hub.commit[0]["value"]["summary"] == "first one"


def test_a_dry_run_sends_nothing(hub, folder, capsys):
    assert push(hub, folder, "dry_run=true") == 0
    assert hub.paths == []
    said = capsys.readouterr().out
    assert f"model.safetensors  {len(FILES['model.safetensors']):>14,} bytes" in said
    num_bytes = sum(map(len, FILES.values()))
    assert f"would send 4 files, {num_bytes:,} bytes, to http://127.0.0.1:{hub.server_port}/me/bert (private" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer.pt": b"x"}, "with optimizer.pt"),
        ({"run.py": b"x"}, "with run.py"),
        ({".git": None}, "with .git"),
        ({"README.md": ()}, "without README.md"),
        ({"model.safetensors": ()}, "without *.safetensors"),
        ({"config.json": b"[]"}, "config.json with list"),
        ({"config.json": b"{"}, "config.json"),
        ({"config.json": b"\xef\xbb\xbf" + FILES["config.json"]}, "config.json with a byte order mark"),
        ({"model.safetensors": FILES["model.safetensors"][:-1]}, "model.safetensors"),
        ({"model.safetensors": b'"x"'}, "model.safetensors"),
        ({"vocab.txt": b""}, "a vocabulary of 1 entries without [UNK]"),
        ({"tokenizer_config.json": b"[" * 100_000}, "tokenizer_config.json whose json is nested too deeply"),
    ],
)
def test_what_is_no_model_folder_is_refused_before_anything_is_sent(hub, folder, capsys, change, message):
    for name, content in change.items():
        if content is None:
            (folder / name).mkdir()
        elif content == ():
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    assert push(hub, folder) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert hub.paths == []


def test_what_the_hub_refuses_is_one_line(hub, folder, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert push(hub, folder) == 2
    error = capsys.readouterr().err
    assert "which did not take me/bert (" in error
    assert "HF_TOKEN" in error
    assert "Traceback" not in error
    assert cli.main(["push", f"model_dir={folder}", "repo=me/bert", "endpoint=http://127.0.0.1:9"]) == 2
    assert "http://127.0.0.1:9, which did not take me/bert (" in capsys.readouterr().err
    assert cli.main(["push", f"model_dir={folder}", "repo=a/b/c", "dry_run=true"]) == 2
    assert "expected NAME/MODEL" in capsys.readouterr().err


def test_offline_is_said_so(hub, folder, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert push(hub, folder) == 2
    assert "offline" in capsys.readouterr().err.lower()
    assert hub.paths == []
