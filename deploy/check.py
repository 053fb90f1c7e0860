"""Renders the kustomization and checks what comes out.

Rendering is done here for the few fields that the kustomization uses, and refuses any other, so that
no kustomize binary is needed. Where `kubectl` or `kustomize` is on the machine, its output has to be the
same; where it is not, that is said.

Checked: every document against the schemas of the oldest and the newest Kubernetes that we name; the
rules in `Manifests` below, which no schema knows; the TOML in the ConfigMaps.
"""

import copy
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tomllib

import kubernetes_validate
import yaml

BASE = pathlib.Path(__file__).parent / "kubernetes"
# The label apps.kubernetes.io/pod-index is there from 1.28 on.
KUBERNETES_VERSIONS = ("1.28", "1.37")
CLUSTER_SCOPED = {"Namespace"}
SECRETS_MADE_BY_HAND = {"afdg-peer-token": {"token"}}
# Kubernetes' own label keys that pods get without our doing.
LABELS_GIVEN = {"apps.kubernetes.io/pod-index", "topology.kubernetes.io/zone"}


def render(folder):
    """The documents that kustomize would make of `folder`."""
    given = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(given) - {"apiVersion", "kind", "namespace", "resources", "configMapGenerator"}
    if unknown:
        raise SystemExit(f"kustomization.yaml uses {sorted(unknown)}; teach deploy/check.py to render that")
    documents = []
    for name in given["resources"]:
        documents += [document for document in yaml.safe_load_all((folder / name).read_text()) if document]
    final_names = {}
    for generator in given["configMapGenerator"]:
        unknown = set(generator) - {"name", "files"}
        if unknown:
            raise SystemExit(f"configMapGenerator uses {sorted(unknown)}; teach deploy/check.py that")
        data = {pathlib.Path(file).name: (folder / file).read_text() for file in generator["files"]}
        final_names[generator["name"]] = f"{generator['name']}-{content_hash(data)}"
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": final_names[generator["name"]]},
                "data": data,
            }
        )
    for document in documents:
        if document["kind"] not in CLUSTER_SCOPED:
            document["metadata"]["namespace"] = given["namespace"]
        for volume in pod_spec(document).get("volumes", []):
            if "configMap" in volume:
                name = volume["configMap"]["name"]
                volume["configMap"]["name"] = final_names.get(name, name)
    return documents


def content_hash(data):
    """Kustomize's suffix: SHA-256 of the object (without its name) as JSON, ten digits, without vowels and
    look-alikes."""
    named = {"data": data, "kind": "ConfigMap", "name": ""}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # As Go's encoder writes them.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))


def pod_spec(document):
    return document.get("spec", {}).get("template", {}).get("spec", {})


def pod_labels(document):
    return document["spec"]["template"]["metadata"]["labels"]


def compare_with_kustomize(documents):
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            break
    else:
        return "neither kubectl nor kustomize is on this machine: our rendering was compared with nothing"
    done = subprocess.run([*command, str(BASE)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    order = lambda document: (document["kind"], document["metadata"]["name"])  # noqa: E731
    theirs = sorted(yaml.safe_load_all(done.stdout), key=order)
    ours = sorted(copy.deepcopy(documents), key=order)
    if list(map(order, theirs)) != list(map(order, ours)):
        raise SystemExit(
            f"`{command[0]}` renders other documents:\n{list(map(order, theirs))}\n{list(map(order, ours))}"
        )
    for their, our in zip(theirs, ours, strict=True):
        if their != our:
            raise SystemExit(f"`{command[0]}` renders {order(our)} differently:\n{their}\n{our}")
    return f"`{' '.join(command)}` renders the same {len(ours)} documents"


class Manifests:
    """The rules. Each yields what is wrong; nothing means it holds."""

    def __init__(self, documents):
        self.documents = documents
        self.workloads = self.of_kind("StatefulSet", "Deployment")
        self.config_maps = {document["metadata"]["name"]: document for document in self.of_kind("ConfigMap")}

    def of_kind(self, *kinds):
        return [document for document in self.documents if document["kind"] in kinds]

    def containers(self):
        for workload in self.workloads:
            spec = pod_spec(workload)
            for container in spec.get("initContainers", []) + spec["containers"]:
                yield workload, f"{workload['metadata']['name']}/{container['name']}", container

    def there_are_three_workloads(self):
        found = {document["metadata"]["name"]: document["spec"]["replicas"] for document in self.workloads}
        wanted = {"afdg-catalog": 3, "afdg-region-node": 3, "afdg-extension": 2}
        if found != wanted:
            yield f"workloads and their replicas are {found}, not {wanted}"

    def no_name_is_used_twice(self):
        seen = set()
        for document in self.documents:
            name = (document["kind"], document["metadata"]["name"])
            if name in seen:
                yield f"{name} stands there twice"
            seen.add(name)

    def probes_ask_the_declared_health_port(self):
        for _, name, container in self.containers():
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            if len(set(ports.values())) != len(ports) or "grpc" not in ports or "health" not in ports:
                yield f"{name} declares {ports}, not one port `grpc` and another `health`"
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container.get(probe, {}).get("grpc", {}).get("port")
                if asked != ports.get("health"):
                    yield f"{name}: {probe} asks port {asked}; the health port is {ports.get('health')}"

    def containers_have_requests_and_limits(self):
        for _, name, container in self.containers():
            resources = container.get("resources", {})
            for side in ("requests", "limits"):
                for what in ("cpu", "memory"):
                    if what not in resources.get(side, {}):
                        yield f"{name} has no {what} in resources.{side}"

    def pods_and_containers_are_locked_down(self):
        for workload in self.workloads:
            name, spec = workload["metadata"]["name"], pod_spec(workload)
            context = spec.get("securityContext", {})
            if not context.get("runAsNonRoot") or not context.get("runAsUser"):
                yield f"{name} does not run as a user other than root"
            if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
                yield f"{name} does not use the runtime's seccomp profile"
            if spec.get("automountServiceAccountToken") is not False:
                yield f"{name} mounts a token of the service account"
            if spec.get("enableServiceLinks") is not False:
                yield f"{name} lets Kubernetes add AFDG_..._PORT variables"
        for account in self.of_kind("ServiceAccount"):
            if account.get("automountServiceAccountToken") is not False:
                yield "the service account's token is mounted"
        for _, name, container in self.containers():
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False:
                yield f"{name} may escalate privileges"
            if context.get("readOnlyRootFilesystem") is not True:
                yield f"{name} may write its root file system"
            if context.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name} keeps capabilities"
            image = container["image"]
            if ":" not in image or image.endswith(":latest"):
                yield f"{name}: the image '{image}' names no version"

    def the_drain_fits_into_the_grace_period(self):
        for workload in self.workloads:
            seconds = pod_spec(workload).get("terminationGracePeriodSeconds", 0)
            if seconds < 60:
                yield f"{workload['metadata']['name']} is killed after {seconds} s, which a drain may need"

    def every_workload_has_one_disruption_budget(self):
        budgets = self.of_kind("PodDisruptionBudget")
        for workload in self.workloads:
            matching = [
                budget for budget in budgets if selects(budget["spec"]["selector"], pod_labels(workload))
            ]
            if len(matching) != 1:
                yield f"{workload['metadata']['name']} has {len(matching)} disruption budgets"
            elif matching[0]["spec"].get("maxUnavailable") != 1:
                yield f"{matching[0]['metadata']['name']} lets more than one pod go at a time"
        for budget in budgets:
            if not any(
                selects(budget["spec"]["selector"], pod_labels(workload)) for workload in self.workloads
            ):
                yield f"{budget['metadata']['name']} selects no pod"

    def selectors_match_their_own_pods_only(self):
        for workload in self.workloads:
            name, spec = workload["metadata"]["name"], pod_spec(workload)
            selectors = [("selector", workload["spec"]["selector"])]
            for spread in spec.get("topologySpreadConstraints", []):
                selectors.append(("topologySpreadConstraints", spread["labelSelector"]))
            anti = spec.get("affinity", {}).get("podAntiAffinity", {})
            for term in anti.get("requiredDuringSchedulingIgnoredDuringExecution", []):
                selectors.append(("podAntiAffinity", term["labelSelector"]))
            for what, selector in selectors:
                selected = [w["metadata"]["name"] for w in self.workloads if selects(selector, pod_labels(w))]
                if selected != [name]:
                    yield f"{name}: {what} selects the pods of {selected}"

    def services_lead_to_a_port_of_one_workload(self):
        for service in self.of_kind("Service"):
            name, spec = service["metadata"]["name"], service["spec"]
            selected = [
                w for w in self.workloads if selects({"matchLabels": spec["selector"]}, pod_labels(w))
            ]
            if len(selected) != 1:
                yield f"service {name} selects {len(selected)} workloads"
                continue
            ports = {p["name"]: p["containerPort"] for p in pod_spec(selected[0])["containers"][0]["ports"]}
            for port in spec["ports"]:
                if ports.get(port["targetPort"]) != port["port"]:
                    yield f"service {name}: port {port['port']} leads to {port['targetPort']} of {ports}"

    def stateful_sets_have_headless_services(self):
        services = {document["metadata"]["name"]: document["spec"] for document in self.of_kind("Service")}
        for workload in self.of_kind("StatefulSet"):
            name, spec = workload["metadata"]["name"], workload["spec"]
            service = services.get(spec["serviceName"])
            if service is None:
                yield f"{name}: there is no service {spec['serviceName']}"
            elif service.get("clusterIP") != "None" or not service.get("publishNotReadyAddresses"):
                yield f"{name}: its service is not headless, or hides pods until they are ready"
            elif not selects({"matchLabels": service["selector"]}, pod_labels(workload)):
                yield f"{name}: the service {spec['serviceName']} does not select its pods"
            if spec.get("podManagementPolicy") != "Parallel":
                yield f"{name}: pods start one by one, which never ends after a full stop"

    def network_policies_select_pods(self):
        for policy in self.of_kind("NetworkPolicy"):
            if not any(selects(policy["spec"]["podSelector"], pod_labels(w)) for w in self.workloads):
                yield f"{policy['metadata']['name']} selects no pod"

    def references_lead_somewhere(self):
        accounts = {document["metadata"]["name"] for document in self.of_kind("ServiceAccount")}
        for workload in self.workloads:
            name, spec = workload["metadata"]["name"], pod_spec(workload)
            if spec.get("serviceAccountName") not in accounts:
                yield f"{name}: there is no service account {spec.get('serviceAccountName')}"
            volumes = {volume["name"] for volume in spec.get("volumes", [])}
            volumes |= {
                claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])
            }
            for volume in spec.get("volumes", []):
                if "configMap" in volume and volume["configMap"]["name"] not in self.config_maps:
                    yield f"{name}: there is no ConfigMap {volume['configMap']['name']}"
            for container in spec["containers"]:
                for mount in container.get("volumeMounts", []):
                    if mount["name"] not in volumes:
                        yield f"{name}: there is no volume {mount['name']}"
        for workload, name, container in self.containers():
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                secret = source.get("secretKeyRef")
                if secret and secret["key"] not in SECRETS_MADE_BY_HAND.get(secret["name"], ()):
                    yield f"{name}: {variable['name']} is of a secret that nothing tells to make"
                path = source.get("fieldRef", {}).get("fieldPath", "")
                if path.startswith("metadata.labels["):
                    label = path.removeprefix("metadata.labels['").removesuffix("']")
                    if label not in LABELS_GIVEN and label not in pod_labels(workload):
                        yield f"{name}: {variable['name']} is of the label {label}, which no pod has"

    def variables_are_defined_before_they_are_used(self):
        for _, name, container in self.containers():
            defined = set()
            for variable in container.get("env", []):
                value = variable.get("value", "")
                for part in value.split("$(")[1:]:
                    used = part.partition(")")[0]
                    if used not in defined:
                        yield f"{name}: {variable['name']} uses $({used}), which is not defined above it"
                defined.add(variable["name"])

    def configurations_parse_and_agree_with_the_pods(self):
        services = {document["metadata"]["name"]: document["spec"] for document in self.of_kind("Service")}
        stateful = {
            document["metadata"]["name"]: document["spec"]["replicas"]
            for document in self.of_kind("StatefulSet")
        }
        for workload, name, container in self.containers():
            config = self.config_of(workload, container)
            if isinstance(config, str):
                yield f"{name}: {config}"
                continue
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for key, port in (("listen", "grpc"), ("health_listen", "health")):
                if config.get(key) != f"0.0.0.0:{ports[port]}":
                    yield f"{name}: {key} is {config.get(key)}; the port {port} is {ports[port]}"
            mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            if "data" in config and config["data"] not in mounts:
                yield f"{name}: data goes to {config['data']}, where no volume is mounted"
            addresses = config.get("catalog", []) or list(config.get("peers", {}).values())
            wanted = [
                f"afdg-catalog-{i}.afdg-catalog:{services['afdg-catalog']['ports'][0]['port']}"
                for i in range(stateful["afdg-catalog"])
            ]
            if addresses != wanted:
                yield f"{name}: the catalog is at {wanted}, not {addresses}"
            bootstrap = config.get("bootstrap")
            if bootstrap and not bootstrap["replicas"] <= bootstrap["nodes"] <= stateful["afdg-region-node"]:
                yield f"{name}: {bootstrap} does not fit {stateful['afdg-region-node']} region nodes"

    def config_of(self, workload, container):
        path = container["args"][container["args"].index("--config") + 1]
        folder, _, file = path.rpartition("/")
        for mount in container["volumeMounts"]:
            if mount["mountPath"] == folder:
                for volume in pod_spec(workload)["volumes"]:
                    if volume["name"] == mount["name"]:
                        text = self.config_maps[volume["configMap"]["name"]]["data"].get(file)
                        if text is None:
                            return f"the ConfigMap has no {file}"
                        try:
                            return tomllib.loads(text)
                        except tomllib.TOMLDecodeError as error:
                            return f"{file} is no TOML: {error}"
        return f"{path} is not mounted"


def selects(selector, labels):
    """Whether a label selector takes pods with `labels`. An empty one would take all: that is no match."""
    unknown = set(selector) - {"matchLabels", "matchExpressions"}
    if unknown or not selector:
        raise SystemExit(f"deploy/check.py can't judge the selector {selector}")
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] != "In":
            raise SystemExit(f"deploy/check.py can't judge the operator {expression['operator']}")
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def check(documents):
    """All that is wrong with `documents`."""
    wrong = []
    for version in KUBERNETES_VERSIONS:
        for document in documents:
            name = f"{document['kind']} {document['metadata']['name']}"
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except (
                kubernetes_validate.ValidationError,
                kubernetes_validate.SchemaNotFoundError,
                kubernetes_validate.InvalidSchemaError,
            ) as error:
                wrong.append(f"{name}, by Kubernetes {version}: {error}")
    manifests = Manifests(documents)
    for name, rule in vars(Manifests).items():
        if rule_is_public(name, rule):
            wrong += [f"{name}: {text}" for text in rule(manifests)]
    return wrong


def rule_is_public(name, rule):
    return callable(rule) and not name.startswith("_") and name not in {"of_kind", "containers", "config_of"}


def main():
    documents = render(BASE)
    print(f"deploy/kubernetes: {compare_with_kustomize(documents)}")
    wrong = check(documents)
    for text in wrong:
        print(f"WRONG: {text}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    rules = sum(rule_is_public(name, rule) for name, rule in vars(Manifests).items())
    print(
        f"deploy/kubernetes: {len(documents)} documents hold to the schemas of Kubernetes "
        f"{' and '.join(KUBERNETES_VERSIONS)} and to {rules} rules of our own"
    )


if __name__ == "__main__":
    main()
