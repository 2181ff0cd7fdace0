# SPDX-License-Identifier: Apache-2.0
"""docker/k8s against Kubernetes' schemas and against what we hold of a pod; the configurations in docker/ against the
server itself.

  manifests_test.py BEAMLINE_BINARY [-v]

The schemas come with kubernetes-validate (scripts/setup.sh --dev installs it). Without it: exit code 77, skipped.
"""
import copy
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import kubernetes_validate
    import yaml
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed (scripts/setup.sh --dev)")
    sys.exit(77)

root = pathlib.Path(__file__).resolve().parents[2]
docker = root / "docker"
base = docker / "k8s" / "base"
gpu = docker / "k8s" / "gpu"
binary = sys.argv.pop(1)


def read(path):
    return yaml.safe_load(path.read_text())


def resources(folder):
    return {name: read(folder / name) for name in read(folder / "kustomization.yaml")["resources"]}


def merged(below, above):
    """As kustomize lays a patch over a resource: maps by key, lists of things with names by name, others replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        keys = below.keys() | above.keys()
        return {k: merged(below[k], above[k]) if k in below and k in above else copy.deepcopy(below.get(k, above.get(k))) for k in keys}
    if isinstance(below, list) and above and isinstance(above[0], dict) and "name" in above[0]:
        by_name = {item["name"]: item for item in below}
        return list({**by_name, **{item["name"]: merged(by_name.get(item["name"], {}), item) for item in above}}.values())
    return copy.deepcopy(above)


def deployments():
    cpu = read(base / "deployment.yaml")
    return {"cpu": cpu, "gpu": merged(cpu, read(gpu / "deployment.yaml"))}


def validate(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)


def seconds(config, field):
    return int(re.search(rf"\b{field}: (\d+)", config).group(1)) / 1000


class Schemas(unittest.TestCase):
    versions = ("1.29", kubernetes_validate.latest_version())

    def test_every_manifest_is_valid_in_the_oldest_and_the_newest_version(self):
        every = {**resources(base), **{f"deployment, {kind}": d for kind, d in deployments().items()},
                 "configmap, gpu": merged(read(base / "configmap.yaml"), read(gpu / "configmap.yaml"))}
        self.assertEqual(len(every), 9)
        for name, resource in every.items():
            for version in self.versions:
                with self.subTest(name, version=version):
                    validate(resource, version)

    def test_a_misspelt_key_and_a_wrong_type_are_found(self):
        for path, value in ((("readinesProbe",), {}), (("livenessProbe", "periodSeconds"), "ten")):
            bad = read(base / "deployment.yaml")
            at = bad["spec"]["template"]["spec"]["containers"][0]
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            for version in self.versions:
                with self.assertRaises(Exception, msg=str(path)):
                    validate(bad, version)


class Policies(unittest.TestCase):
    def each(self):
        for kind, deployment in deployments().items():
            pod = deployment["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            with self.subTest(kind):
                yield deployment, pod, container

    def test_nothing_runs_with_privileges(self):
        for _, pod, container in self.each():
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
            self.assertEqual(pod["securityContext"]["runAsUser"], 65532)
            self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
            self.assertIs(pod["automountServiceAccountToken"], False)
            own = container["securityContext"]
            self.assertIs(own["allowPrivilegeEscalation"], False)
            self.assertIs(own["readOnlyRootFilesystem"], True)
            self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
            room = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}  # of the pod's own, gone with it
            self.assertLessEqual(room, {"tuning"})
            self.assertTrue(all(mount.get("readOnly") or mount["name"] in room for mount in container["volumeMounts"]))

    def test_resources_are_bounded_and_the_configuration_knows(self):
        for _, _, container in self.each():
            resources_of = container["resources"]
            self.assertEqual(resources_of["requests"], resources_of["limits"])
            self.assertIn("memory", resources_of["limits"])
            self.assertIn(f"threads: {resources_of['limits']['cpu']} ", config_map())
        on_gpu = deployments()["gpu"]["spec"]
        self.assertEqual(on_gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1")
        self.assertEqual(on_gpu["strategy"]["rollingUpdate"], {"maxSurge": 0, "maxUnavailable": 1})

    def test_probes_ask_the_admin_port_for_pages_that_exist(self):
        pages = (root / "src/server/admin_pages.cc").read_text()
        for _, _, container in self.each():
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            self.assertEqual(ports, {"grpc": 50051, "admin": 50053})
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                get = container[probe]["httpGet"]
                self.assertEqual(get["port"], "admin")
                self.assertIn(f'"{get["path"]}"', pages)
            self.assertEqual(container["livenessProbe"]["httpGet"]["path"], "/livez", "a busy server must not be killed")

    def test_there_is_time_to_drain(self):
        config = config_map()
        drain, grace = seconds(config, "drain_delay_ms"), seconds(config, "grace_ms")
        for _, pod, container in self.each():
            readiness = container["readinessProbe"]
            self.assertGreater(drain, readiness["periodSeconds"] * readiness["failureThreshold"])
            sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
            self.assertGreater(pod["terminationGracePeriodSeconds"], sleep + drain + grace + 1)
        self.assertGreaterEqual(grace, seconds(config, "max_deadline_ms"), "no call is cut off")

    def test_an_image_of_another_name_reaches_the_pods_of_both_kinds(self):
        # An overlay's `images` are looked up by the names that the resources below have.
        for folder in (base, base.parent / "cpu", gpu):
            self.assertEqual([image["name"] for image in read(folder / "kustomization.yaml").get("images", [])],
                             [] if folder == base else ["beamline"])
        for _, _, container in self.each():
            self.assertEqual(container["image"], "beamline")

    def test_the_number_of_pods_is_the_autoscalers(self):
        for deployment, _, _ in self.each():
            self.assertNotIn("replicas", deployment["spec"])

    def test_new_pods_get_calls_soon(self):
        self.assertLessEqual(seconds(config_map(), "max_connection_age_ms"), 60)
        client = json.loads((docker / "k8s/client-service-config.json").read_text())
        self.assertEqual(client["loadBalancingConfig"], [{"round_robin": {}}])
        self.assertIn("client-service-config.json", (base / "service.yaml").read_text())

    def test_the_pod_monitor_finds_the_pods_under_the_name_that_the_rules_have(self):
        monitor = read(docker / "k8s/podmonitor.yaml")["spec"]
        metadata = deployments()["cpu"]["spec"]["template"]["metadata"]
        self.assertEqual(metadata["labels"][monitor["jobLabel"]], "beamline")
        self.assertEqual(monitor["selector"]["matchLabels"].items() & metadata["labels"].items(),
                         monitor["selector"]["matchLabels"].items())
        for _, _, container in self.each():
            self.assertIn(monitor["podMetricsEndpoints"][0]["port"], [port["name"] for port in container["ports"]])

    def test_the_proxy_leaves_refusals_to_the_servers(self):
        capacity = int(re.search(r"queue_capacity = \d+ \[default = (\d+)\]",
                                 (root / "proto/beamline/config/v1/server_config.proto").read_text()).group(1))
        most = int(re.search(r" maxconn (\d+)", (docker / "proxy/haproxy.cfg").read_text()).group(1))
        self.assertGreater(most, 2 * capacity)

    def test_selectors_meet(self):
        labels = deployments()["cpu"]["spec"]["template"]["metadata"]["labels"]
        every = resources(base)
        for selector in (deployments()["cpu"]["spec"]["selector"]["matchLabels"],
                         every["service.yaml"]["spec"]["selector"],
                         every["pdb.yaml"]["spec"]["selector"]["matchLabels"],
                         every["networkpolicy.yaml"]["spec"]["podSelector"]["matchLabels"]):
            self.assertEqual(selector.items() & labels.items(), selector.items())
            self.assertTrue(selector)

    def test_the_autoscaler_reads_what_prometheus_records(self):
        metrics = [metric["pods"]["metric"]["name"] for metric in read(base / "hpa.yaml")["spec"]["metrics"]]
        rules = read(docker / "k8s" / "prometheus-adapter.yaml")["rules"]
        self.assertEqual(metrics, [rule["name"]["as"] for rule in rules])
        recorded = [rule["record"] for rule in read(root / "monitoring" / "recording.yml")["groups"][0]["rules"]]
        self.assertEqual(len(recorded), len(rules))
        for name, rule in zip(recorded, rules):
            self.assertIn(f'"{name}"', rule["seriesQuery"])

    def test_reloads_are_not_reachable_from_outside_the_pod(self):
        (public, proxy, admin) = [[port["port"] for port in rule["ports"]]
                                  for rule in read(base / "networkpolicy.yaml")["spec"]["ingress"]]
        self.assertEqual((public, proxy, admin), (["grpc"], ["grpc", "admin"], ["admin"]))
        for text in (config_map(), (docker / "server.textproto").read_text()):
            self.assertRegex(text, r'admin \{\s+address: "127\.0\.0\.1"')


class Configurations(unittest.TestCase):
    def test_a_pod_that_was_given_a_gpu_serves_from_it_or_not_at_all(self):
        patches = [patch["path"] for patch in read(gpu / "kustomization.yaml")["patches"]]
        self.assertEqual(sorted(patches), ["configmap.yaml", "deployment.yaml"])
        patch = read(gpu / "configmap.yaml")
        self.assertEqual(patch["metadata"]["name"], read(base / "configmap.yaml")["metadata"]["name"])
        self.assertEqual(patch["data"], {"server.textproto": config_map().replace('device: "auto"', 'device: "cuda"')})
        self.assertIn('device: "cuda"', config_map(gpu))

    def test_the_example_works_behind_the_proxy_once_its_probes_are_opened(self):
        text = (root / "configs" / "server.textproto").read_text()
        opened, count = re.subn(r"^  # (http_address: \".*)$", r"  \1", text, flags=re.MULTILINE)
        self.assertEqual(count, 1, "the comment gives the line")
        self.assertRegex(opened, r'admin \{[^}]*  address: "127\.0\.0\.1"', "reloads stay where they were")
        port = re.search(r"http_port: (\d+)", text).group(1)
        self.assertIn(f"http-check connect port {port} ", (docker / "proxy" / "haproxy.cfg").read_text())
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "server.textproto"
            path.write_text(opened.replace("engine {", f'engine {{ model_folder: "{folder}"', 1))
            check = subprocess.run([binary, "serve", "--check-config", "--config", path], capture_output=True, text=True)
            self.assertEqual(check.returncode, 0, check.stderr)

    def test_the_server_accepts_them(self):
        for name, text in (("ConfigMap", config_map()), ("GPU's ConfigMap", config_map(gpu)),
                           ("image", (docker / "server.textproto").read_text())):
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "server.textproto"
                self.assertEqual(text.count("/srv/beamline/models"), 1)
                self.assertIn('log { format: "json" }', text)
                path.write_text(text.replace("/srv/beamline/models", folder))
                check = subprocess.run([binary, "serve", "--check-config", "--config", path], capture_output=True, text=True)
                self.assertEqual(check.returncode, 0, check.stderr)

    def test_compose_mounts_what_is_there(self):
        services = read(docker / "compose.yaml")["services"]
        self.assertEqual(sorted(services), ["beamline", "grafana", "prometheus"])
        for service in services.values():
            for volume in service["volumes"]:
                source = volume.rsplit(":", 2)[0]
                if not source.startswith("${"):
                    self.assertTrue((docker / source).exists(), source)
            for port in service["ports"]:
                self.assertTrue(port.startswith("127.0.0.1:"), port)
        self.assertIs(services["beamline"]["read_only"], True)
        target = read(docker / "prometheus.yml")["scrape_configs"][0]
        self.assertEqual((target["job_name"], target["static_configs"][0]["targets"]), ("beamline", ["beamline:50053"]))


def config_map(folder=base):
    return read(folder / "configmap.yaml")["data"]["server.textproto"]


if __name__ == "__main__":
    unittest.main()
