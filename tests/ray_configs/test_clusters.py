"""What `ray up` and the shell scripts are checked for without any machine: Ray's own schema, bash and shellcheck."""

import subprocess
from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).parents[2] / "ray_configs"
SCRIPTS = sorted(CONFIGS.glob("*.sh"))
CLOUDS = [CONFIGS / "aws.yaml", CONFIGS / "gcp.yaml"]


def prepared(path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    return config


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_ray_up_accepts_the_cluster(path):
    kinds = prepared(path)["available_node_types"]
    assert kinds["gpu"]["resources"]["GPU"] == 8
    assert kinds["gpu"]["min_workers"] < kinds["gpu"]["max_workers"]
    assert kinds["gpu"]["labels"] != kinds["head"]["labels"]


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_every_node_is_started_with_the_token_and_no_dashboard_but_on_loopback(path):
    config = prepared(path)
    [head] = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    [worker] = [command for command in config["worker_start_ray_commands"] if "ray start" in command]
    assert head.startswith("RAY_AUTH_MODE=token ") and worker.startswith("RAY_AUTH_MODE=token ")
    assert "--dashboard-host=127.0.0.1" in head
    assert config["file_mounts"]["~/.ray/auth_token"]


def test_ray_up_refuses_a_misspelt_field():
    import jsonschema
    from ray.autoscaler._private.util import validate_config

    config = prepared(CLOUDS[0])
    config["available_node_types"]["gpu"]["lables"] = {}
    with pytest.raises(jsonschema.ValidationError, match="lables"):
        validate_config(config)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_parse_and_shellcheck_finds_nothing(path):
    assert subprocess.run(["bash", "-n", path], capture_output=True).stderr == b""
    assert subprocess.run(["shellcheck", path], capture_output=True, text=True).stdout == ""


def test_no_runtime_environment_carries_anything():
    texts = [line for path in CONFIGS.glob("*.yaml") for line in path.read_text().splitlines()]
    assert not [line for line in texts if "runtime" in line.partition("#")[0]]
