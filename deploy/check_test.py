"""Spoils the manifests in one way after another: check.py has to see each."""

import copy
import sys

from check import BASE, check, pod_spec, render


def find(documents, kind, name):
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"].startswith(name))


def container(documents, role):
    kind = "Deployment" if role == "extension" else "StatefulSet"
    return pod_spec(find(documents, kind, f"afdg-{role}"))["containers"][0]


def config(documents, role, old, new):
    data = find(documents, "ConfigMap", f"afdg-{role}")["data"]
    text = data[f"{role}.toml"]
    assert old in text, f"{role}.toml holds no {old}"
    data[f"{role}.toml"] = text.replace(old, new)


SPOILED = {
    "a misspelt field": lambda d: container(d, "catalog").update(imagePullpolicy="Always"),
    "a probe at the main port": lambda d: container(d, "catalog")["livenessProbe"]["grpc"].update(port=7100),
    "no readiness probe": lambda d: container(d, "extension").pop("readinessProbe"),
    "no memory limit": lambda d: container(d, "region-node")["resources"]["limits"].pop("memory"),
    "a writable root": lambda d: container(d, "catalog")["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "an image without version": lambda d: container(d, "catalog").update(image="afdg"),
    "a short grace period": lambda d: pod_spec(find(d, "StatefulSet", "afdg-catalog")).update(
        terminationGracePeriodSeconds=5
    ),
    "service links": lambda d: pod_spec(find(d, "Deployment", "afdg-extension")).pop("enableServiceLinks"),
    "a budget of other pods": lambda d: find(d, "PodDisruptionBudget", "afdg-catalog")["spec"]["selector"][
        "matchLabels"
    ].update({"app.kubernetes.io/component": "catalogue"}),
    "no budget": lambda d: d.remove(find(d, "PodDisruptionBudget", "afdg-region-node")),
    "a selector of all pods": lambda d: find(d, "Service", "afdg-extension")["spec"]["selector"].pop(
        "app.kubernetes.io/component"
    ),
    "no headless service": lambda d: d.remove(find(d, "Service", "afdg-region-node")),
    "a service that hides starting pods": lambda d: find(d, "Service", "afdg-catalog")["spec"].pop(
        "publishNotReadyAddresses"
    ),
    "a service to a wrong port": lambda d: find(d, "Service", "afdg-extension")["spec"]["ports"][0].update(
        port=80
    ),
    "a secret that nobody makes": lambda d: container(d, "extension")["env"][-1]["valueFrom"][
        "secretKeyRef"
    ].update(name="token"),
    "a variable used before it is defined": lambda d: container(d, "region-node")["env"].reverse(),
    "a configuration that is no TOML": lambda d: config(d, "extension", "catalog = [", "catalog = "),
    "a configuration with another port": lambda d: config(d, "catalog", "0.0.0.0:7100", "0.0.0.0:7101"),
    "a catalog server left out": lambda d: config(
        d, "region-node", '  "afdg-catalog-1.afdg-catalog:7100",\n', ""
    ),
    "data beside the volume": lambda d: config(d, "catalog", '"/var/lib/afdg"', '"/var/afdg"'),
    "more replicas than nodes": lambda d: config(d, "catalog", "replicas = 3", "replicas = 5"),
}


def main():
    sound = render(BASE)
    unseen = []
    for name, spoil in SPOILED.items():
        documents = copy.deepcopy(sound)
        spoil(documents)
        if not check(documents):
            unseen.append(name)
    for name in unseen:
        print(f"WRONG: check.py does not see {name}", file=sys.stderr)
    if unseen:
        sys.exit(1)
    print(f"deploy/check.py sees each of {len(SPOILED)} ways to spoil the manifests")


if __name__ == "__main__":
    main()
