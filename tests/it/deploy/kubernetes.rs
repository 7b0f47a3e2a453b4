//! `deploy/kubernetes`: manifests that fit each other and the server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{AFTER_DRAIN_S, configuration, elements, members, path, text, yaml};

const BASE: &str = "deploy/kubernetes/base";
/// By what every part knows the pods.
const NAME: &str = "app.kubernetes.io/name";

/// The only manifest of this kind and name in the base.
fn base(kind: &str, name: &str) -> Value {
    let listed = yaml(&format!("{BASE}/kustomization.yaml"));
    let manifests = elements(&listed["resources"])
        .map(|file| yaml(&format!("{BASE}/{}", text(file))))
        .filter(|manifest| manifest["kind"] == kind && manifest["metadata"]["name"] == name);
    let mut found: Vec<_> = manifests.collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    found.remove(0)
}

fn set() -> Value {
    base("StatefulSet", "latentd")
}

fn container(set: &Value) -> &Value {
    let containers: Vec<_> = elements(&set["spec"]["template"]["spec"]["containers"]).collect();
    assert_eq!(containers.len(), 1);
    containers[0]
}

/// Names of the elements of a list.
fn named(list: &Value) -> BTreeSet<&str> {
    elements(list).map(|each| text(&each["name"])).collect()
}

#[test]
fn every_kustomization_names_what_is_there_and_nothing_lies_beside_it() {
    for folder in ["base", "monitoring", "postgres", "gpu", "example"] {
        let at = format!("deploy/kubernetes/{folder}");
        let whole = yaml(&format!("{at}/kustomization.yaml"));
        assert!(["Kustomization", "Component"].contains(&text(&whole["kind"])), "{folder}");
        let mut named: BTreeSet<String> =
            elements(&whole["patches"]).map(|p| text(&p["path"]).into()).collect();
        for name in elements(&whole["resources"]).chain(elements(&whole["components"])).map(text) {
            if name.ends_with(".yaml") {
                named.insert(name.into());
            } else {
                assert!(path(&at).join(name).join("kustomization.yaml").is_file(), "{folder}: {name}");
            }
        }
        let files = std::fs::read_dir(path(&at))
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name());
        let mut files: BTreeSet<_> = files.map(|name| name.into_string().expect("UTF-8")).collect();
        assert!(files.remove("kustomization.yaml"));
        assert_eq!(named, files, "{folder}");
    }
}

#[test]
fn every_part_selects_the_pods_of_the_set() {
    let set = set();
    let labels = json!({ NAME: "latentd" });
    assert_eq!(set["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(base("PodDisruptionBudget", "latentd")["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(base("NetworkPolicy", "latentd")["spec"]["podSelector"]["matchLabels"], labels);
    let ports = named(&container(&set)["ports"]);
    for name in ["latentd", "latentd-replicas"] {
        let service = base("Service", name);
        assert_eq!(service["spec"]["selector"], labels);
        let targets: BTreeSet<_> =
            elements(&service["spec"]["ports"]).map(|port| text(&port["targetPort"])).collect();
        assert_eq!(targets, ports, "{name}");
    }
    for rule in elements(&base("NetworkPolicy", "latentd")["spec"]["ingress"]) {
        assert!(elements(&rule["ports"]).all(|port| ports.contains(text(&port["port"]))));
    }
    let headless = base("Service", "latentd-replicas");
    assert_eq!(
        (&set["spec"]["serviceName"], &headless["spec"]["clusterIP"]),
        (&json!("latentd-replicas"), &json!("None"))
    );
}

#[test]
fn the_pod_is_confined_probed_and_given_the_time_to_drain() {
    let set = set();
    let (pod, container) = (&set["spec"]["template"]["spec"], container(&set));
    let dockerfile = super::read("Dockerfile");
    let user = format!("\nUSER {0}:{0}\n", pod["securityContext"]["runAsUser"]);
    assert_eq!(dockerfile.matches(&user).count(), 2, "the user of both images");
    for context in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(pod["securityContext"][context], 10001, "{context}");
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["serviceAccountName"], base("ServiceAccount", "latentd")["metadata"]["name"]);
    let confined = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
    });
    assert_eq!(container["securityContext"], confined);
    assert_eq!(container["livenessProbe"]["httpGet"], json!({ "path": "/livez", "port": "http" }));
    assert_eq!(container["readinessProbe"]["httpGet"], json!({ "path": "/readyz", "port": "http" }));
    assert_eq!(container["resources"]["requests"], container["resources"]["limits"]);

    let environment: Vec<_> =
        elements(&container["env"]).map(|each| (text(&each["name"]), &each["value"])).collect();
    let plain = environment.iter().filter(|(name, _)| name.starts_with("LATENTD_"));
    let value =
        |value: &Value| text(value).replace("$(POD_NAME)", "latentd-0").replace("$(POD_NAMESPACE)", "lab");
    let plain: Vec<_> = plain.map(|(name, text)| (*name, value(text))).collect();
    let config = configuration(plain.iter().map(|(name, text)| (*name, text.as_str())));
    assert!(super::asks_for_keys(&config) && config.open_metrics, "Prometheus alone has no key");
    assert_eq!(config.endpoint.as_deref(), Some("http://latentd-0.latentd-replicas.lab.svc:8080"));
    let grace_s = pod["terminationGracePeriodSeconds"].as_f64().expect("a number of seconds");
    assert!(grace_s >= config.drain.as_secs_f64() + AFTER_DRAIN_S, "{grace_s} s");
}

#[test]
fn every_mount_has_its_volume_and_the_journal_stays() {
    let set = set();
    let claims: BTreeSet<_> = elements(&set["spec"]["volumeClaimTemplates"])
        .map(|claim| text(&claim["metadata"]["name"]))
        .collect();
    assert_eq!(claims, BTreeSet::from(["data"]));
    let volumes = named(&set["spec"]["template"]["spec"]["volumes"]);
    let mounts = &container(&set)["volumeMounts"];
    assert_eq!(named(mounts), claims.union(&volumes).copied().collect());
    let data = elements(mounts).find(|mount| mount["name"] == "data").expect("the journal's mount");
    assert!(super::read("Dockerfile").contains(&format!("LATENTD_DATA={} ", text(&data["mountPath"]))));
    assert!(members(&set["spec"]["persistentVolumeClaimRetentionPolicy"]).all(|(_, what)| what == "Retain"));

    let patch = yaml("deploy/kubernetes/postgres/statefulset.yaml");
    let added = container(&patch);
    assert_eq!(named(&added["volumeMounts"]), named(&patch["spec"]["template"]["spec"]["volumes"]));
    let password = elements(&added["env"]).find(|each| each["name"] == "LATENTD_DATABASE_PASSWORD_FILE");
    let password = text(&password.expect("the password comes from a file")["value"]);
    assert!(password.starts_with(text(&added["volumeMounts"][0]["mountPath"])), "{password}");
    for patch in
        ["postgres", "gpu"].map(|folder| yaml(&format!("deploy/kubernetes/{folder}/statefulset.yaml")))
    {
        assert_eq!((&patch["kind"], &patch["metadata"]["name"]), (&json!("StatefulSet"), &json!("latentd")));
        assert_eq!(container(&patch)["name"], container(&set)["name"]);
    }
}

#[test]
fn prometheus_finds_each_replica_once_under_the_job_that_the_alerts_know() {
    let monitor = yaml("deploy/kubernetes/monitoring/servicemonitor.yaml");
    let wanted = &monitor["spec"]["selector"]["matchLabels"];
    let labelled = |name: &str| {
        let mut labels = base("Service", name)["metadata"]["labels"].clone();
        for (label, value) in members(&yaml(&format!("{BASE}/kustomization.yaml"))["labels"][0]["pairs"]) {
            labels[label] = value.clone();
        }
        labels
    };
    let fits = |name: &&str| members(wanted).all(|(label, value)| labelled(name)[label] == *value);
    let found: Vec<_> = ["latentd", "latentd-replicas"].into_iter().filter(fits).collect();
    assert_eq!(found, ["latentd-replicas"]);
    assert_eq!(labelled("latentd-replicas")[text(&monitor["spec"]["jobLabel"])], "latentd");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&json!("http"), &json!("/metrics")));
}
