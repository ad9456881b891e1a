"""scripts/launch/kubernetes.yaml without a cluster: its fields, what they refer to, and what its command starts.

The fields are those of the JobSet API reference (jobset.x-k8s.io/v1alpha2) and of batch/v1 Job and v1 PodSpec in the
Kubernetes API reference, of which only the ones used here are listed: a server refuses others in strict mode.
"""

import os
import re
import subprocess
from itertools import pairwise

import pytest
import yaml

from bert_lamb.cli.compose import compose
from tests.launch import CHECKOUT

FILE = CHECKOUT / "scripts" / "launch" / "kubernetes.yaml"
NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"  # DNS label, RFC 1123
# What may be there, by level; a value of a type is a leaf, [x] a list of x.
STRINGS = [str]
SCHEMA = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "network": {"enableDNSHostnames": bool, "subdomain": str},
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [{"name": str, "action": str, "onJobFailureReasons": STRINGS}],
        },
        "replicatedJobs": [
            {
                "name": str,
                "replicas": int,
                "template": {
                    "spec": {
                        "parallelism": int,
                        "completions": int,
                        "completionMode": str,
                        "backoffLimit": int,
                        "podFailurePolicy": {
                            "rules": [
                                {
                                    "action": str,
                                    "onExitCodes": {"containerName": str, "operator": str, "values": [int]},
                                }
                            ]
                        },
                        "template": {
                            "spec": {
                                "restartPolicy": str,
                                "terminationGracePeriodSeconds": int,
                                "containers": [
                                    {
                                        "name": str,
                                        "image": str,
                                        "env": [{"name": str, "value": str}],
                                        "command": STRINGS,
                                        "args": STRINGS,
                                        "resources": {
                                            "limits": {"nvidia.com/gpu": int, "cpu": str, "memory": str},
                                        },
                                        "volumeMounts": [{"name": str, "mountPath": str}],
                                    }
                                ],
                                "volumes": [
                                    {
                                        "name": str,
                                        "persistentVolumeClaim": {"claimName": str},
                                        "emptyDir": {"medium": str, "sizeLimit": str},
                                    }
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


def wrong_fields(value, schema, where=""):
    """Paths of fields that the API does not have, or that have another type there."""
    if isinstance(schema, type):
        return [] if type(value) is schema else [f"{where}: {type(value).__name__}"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [wrong for one in value for wrong in wrong_fields(one, schema[0], f"{where}[]")]
    if not isinstance(value, dict):
        return [f"{where}: no mapping"]
    unknown = [f"{where}.{name}" for name in value.keys() - schema.keys()]
    return unknown + [
        wrong
        for name in value.keys() & schema.keys()
        for wrong in wrong_fields(value[name], schema[name], f"{where}.{name}")
    ]


@pytest.fixture(scope="module")
def jobset():
    return yaml.safe_load(FILE.read_text())


@pytest.fixture(scope="module")
def job(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


@pytest.fixture(scope="module")
def pod(job):
    return job["template"]["spec"]


@pytest.fixture(scope="module")
def environment(pod):
    (container,) = pod["containers"]
    return {one["name"]: one["value"] for one in container["env"]}


def test_fields_are_those_of_the_api(jobset):
    assert wrong_fields(jobset, SCHEMA) == []
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert wrong_fields({"metadata": {"nme": "x"}, "kind": 1}, SCHEMA) != []


def test_names_refer_to_each_other(jobset, job, pod):
    (container,) = pod["containers"]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    for name in (
        jobset["metadata"]["name"],
        replicated["name"],
        container["name"],
        *(v["name"] for v in pod["volumes"]),
    ):
        assert re.fullmatch(NAME, name), name
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


def test_a_restart_resumes_and_a_mistake_ends_it(jobset, job, pod):
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    assert job["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never", "which a podFailurePolicy asks for (batch/v1)"
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (of_pod,) = job["podFailurePolicy"]["rules"]
    assert (of_pod["action"], of_pod["onExitCodes"]["values"]) == ("FailJob", [2])


def test_there_is_time_to_save_and_memory_to_share(pod, environment):
    assert pod["terminationGracePeriodSeconds"] >= int(environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) + 30
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (container,) = pod["containers"]
    (shm,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    assert volumes[shm]["emptyDir"]["medium"] == "Memory"


def start(tmp_path, pod, environment, *, index, status=0):
    """The pod's command with stand-ins that print their words."""
    (tmp_path / "torchrun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bert-lamb").write_text(f'#!/bin/sh\necho "composed $*" >>"{tmp_path}/log"\nexit {status}\n')
    for name in ("torchrun", "bert-lamb"):
        (tmp_path / name).chmod(0o755)
    (container,) = pod["containers"]
    return subprocess.run(
        [*container["command"], *container["args"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": index, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_starts_the_ranks_of_every_machine(tmp_path, jobset, job, pod, environment):
    words = start(tmp_path, pod, environment, index="0").stdout.splitlines()
    option = dict(pairwise(words))
    (container,) = pod["containers"]
    assert int(option["--nnodes"]) == job["parallelism"] == job["completions"]
    assert int(option["--nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    # A pod's name: JobSet, replicated job, index of the job, index of the pod, in the JobSet's subdomain.
    name, of_jobs = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"][0]["name"]
    assert option["--rdzv-endpoint"] == f"{name}-{of_jobs}-0-0.{jobset['spec']['network']['subdomain']}:29400"
    assert option["--rdzv-conf"] == "is_host=true"
    second = start(tmp_path, pod, environment, index="1").stdout.splitlines()
    assert "is_host=false" in second
    call = words[words.index("bert-lamb", words.index("--no-python")) :]
    assert call == ["bert-lamb", *container["args"], "if_exists=resume"]
    assert compose("pretrain", call[2:]).if_exists.value == "resume"
    # What torchrun itself makes of these options.
    from torch.distributed.run import parse_args

    parsed = parse_args(words)
    assert (parsed.training_script, parsed.rdzv_backend, parsed.no_python) == ("bert-lamb", "c10d", True)


def test_a_configuration_that_is_refused_is_not_tried_again(tmp_path, pod, environment):
    ended = start(tmp_path, pod, environment, index="0", status=2)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "if_exists=resume --cfg job" in (tmp_path / "log").read_text()
