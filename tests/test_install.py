"""A wheel, installed outside the checkout, is complete: conf/, data_prep/, the template, the console script."""

import os
import subprocess
import sys
import zipfile

import yaml

from tests.launch import CHECKOUT


def test_a_wheel_works_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(tmp_path)]
    subprocess.run([*build, str(CHECKOUT)], check=True)
    (wheel,) = tmp_path.glob("bert_lamb-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = set(archive.namelist())
    templates = {f"bert_lamb/report/{name}" for name in ("page.html.j2", "page.js", "page_plots.css")}
    templates |= {"bert_lamb/outputs/page.css", "bert_lamb/outputs/page_contents.html.j2"}
    templates |= {"bert_lamb/checkpoint/model_card.md.j2", "data_prep/card/card.md.j2"}
    assert {"bert_lamb/conf/recipe/lamb_32k.yaml", "data_prep/prepare.py", *templates} <= names
    assert not any(name.startswith(("tests/", "scripts/", "runs/")) for name in names)
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "bert-lamb = bert_lamb.cli.main:main" in entry_points.read_text()

    def call(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert call("-c", "import bert_lamb; print(bert_lamb.__file__)").startswith(str(site))
    command = ["-m", "bert_lamb", "pretrain", "recipe=lamb_32k", "shards=s", "run_dir=r", "--cfg", "job"]
    assert yaml.safe_load(call(*command))["phases"]["phase1"]["total_steps"] == 14_063
