//! `deploy/compose.yaml`: what it names is there, nothing is open that need not be, and no password is in sight.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

use super::{AFTER_DRAIN_S, configuration, elements, members, path, read, text, yaml};

const FILE: &str = "deploy/compose.yaml";

/// Keys that a service may have here: those whose meaning is checked below, or that have nothing to check.
const SERVICE_KEYS: &[&str] = &[
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "deploy",
    "environment",
    "healthcheck",
    "image",
    "logging",
    "networks",
    "ports",
    "profiles",
    "read_only",
    "restart",
    "secrets",
    "security_opt",
    "shm_size",
    "stop_grace_period",
    "tmpfs",
    "ulimits",
    "volumes",
];

fn services() -> Vec<(String, Value)> {
    members(&yaml(FILE)["services"]).map(|(name, service)| (name.to_owned(), service.clone())).collect()
}

/// Those that are latentd.
fn servers() -> Vec<(String, Value)> {
    let found: Vec<_> = services().into_iter().filter(|(name, _)| name.starts_with("latentd")).collect();
    assert_eq!(found.len(), 2, "one for the CPU, one for a GPU");
    found
}

/// `${NAME:-default}` by its default, wherever it stands.
fn by_default(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.into() };
    let (name, after) = rest.split_once('}').expect("a closing brace");
    let (_, default) = name.split_once(":-").unwrap_or_else(|| panic!("{name} has no default"));
    format!("{before}{default}{}", by_default(after))
}

fn seconds(duration: &Value) -> f64 {
    text(duration).strip_suffix('s').and_then(|number| number.parse().ok()).expect("a number of seconds")
}

/// Names in a list of texts, or of an object's members.
fn names(value: &Value) -> BTreeSet<String> {
    let listed = elements(value).map(|name| text(name).to_owned());
    listed.chain(members(value).map(|(name, _)| name.to_owned())).collect()
}

#[test]
fn what_a_service_names_is_declared_and_what_is_declared_is_used() {
    let whole = yaml(FILE);
    let known = ["name", "x-latentd", "services", "networks", "volumes", "secrets"];
    assert!(members(&whole).all(|(key, _)| known.contains(&key)));
    let declared = |kind: &str| names(&whole[kind]);
    let (mut networks, mut volumes, mut secrets) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (name, service) in services() {
        let odd: Vec<_> = members(&service).filter(|(key, _)| !SERVICE_KEYS.contains(key)).collect();
        assert!(odd.is_empty(), "{name}: {odd:?}");
        networks.extend(names(&service["networks"]));
        secrets.extend(names(&service["secrets"]));
        for volume in elements(&service["volumes"]) {
            let volume = by_default(text(volume));
            let mut parts = volume.split(':');
            let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            assert!(target.starts_with('/'), "{name}: {volume}");
            if source.starts_with('.') {
                assert!(path("deploy").join(source).is_dir(), "{name}: {source} is not there");
                assert_eq!(parts.next(), Some("ro"), "{name}: {source} comes from the repository");
            } else {
                volumes.insert(source.to_owned());
            }
        }
        for (other, condition) in members(&service["depends_on"]) {
            let healthy = condition["condition"] == "service_healthy";
            assert!(
                healthy && whole["services"][other]["healthcheck"].is_object(),
                "{name} waits for {other}"
            );
        }
    }
    assert_eq!(networks, declared("networks"));
    assert_eq!(volumes, declared("volumes"));
    assert_eq!(secrets, declared("secrets"));
}

#[test]
fn every_service_is_watched_confined_and_bound_to_the_loopback_address() {
    for (name, service) in services() {
        assert_eq!(service["healthcheck"]["test"][0], "CMD", "{name} has a health check");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(service["logging"]["options"]["max-size"].is_string(), "{name}: its log is bounded");
        let image = text(&service["image"]);
        let (_, tag) = image.split_once(':').unwrap_or_else(|| panic!("{image} names no version"));
        assert_ne!(tag, "latest", "{name}");
        for port in elements(&service["ports"]) {
            assert!(by_default(text(port)).starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
    let whole = yaml(FILE);
    assert_eq!(whole["networks"]["back"]["internal"], true);
    assert_eq!(names(&whole["services"]["postgres"]["networks"]), BTreeSet::from(["back".into()]));
    assert!(whole["services"]["postgres"]["ports"].is_null());
}

#[test]
fn latentd_runs_as_the_image_means_it_and_has_the_time_to_drain() {
    let dockerfile = read("Dockerfile");
    let mut profiles = BTreeSet::new();
    for (name, service) in servers() {
        let target = text(&service["build"]["target"]);
        assert!(dockerfile.contains(&format!(" AS {target}\n")), "{name}: the Dockerfile has no {target}");
        assert_eq!(service["build"]["context"], "..");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert!(text(&service["tmpfs"][0]).starts_with("/tmp:"), "{name}");
        assert_eq!(service["healthcheck"]["test"], serde_json::json!(["CMD", "latentd", "ready"]));
        assert!(
            names(&service["networks"]["front"]["aliases"]).contains("latentd"),
            "Prometheus looks for it"
        );
        let mounted: Vec<_> = elements(&service["volumes"]).map(|volume| by_default(text(volume))).collect();
        assert_eq!(mounted, ["journal:/data", "../models:/models:ro"]);
        let environment: Vec<_> =
            members(&service["environment"]).map(|(key, value)| (key, by_default(text(value)))).collect();
        let config = configuration(environment.iter().map(|(key, value)| (*key, value.as_str())));
        assert!(super::asks_for_keys(&config), "{name}");
        assert!(config.open_metrics, "{name}: Prometheus has no key");
        assert!(
            seconds(&service["stop_grace_period"]) >= config.drain.as_secs_f64() + AFTER_DRAIN_S,
            "{name}"
        );
        profiles.insert(names(&service["profiles"]));
    }
    assert_eq!(profiles, ["cpu", "gpu"].map(|name| BTreeSet::from([name.to_owned()])).into());
    assert!(read("deploy/.env").lines().any(|line| line == "COMPOSE_PROFILES=cpu"));
}

#[test]
fn passwords_are_secrets_each_made_once() {
    for (name, service) in services() {
        let secrets = names(&service["secrets"]);
        for (key, value) in members(&service["environment"]) {
            let value = text(value);
            if let Some(secret) = value.strip_prefix("/run/secrets/") {
                assert!(key.ends_with("_FILE"), "{name}: {key}");
                assert!(secrets.contains(secret), "{name}: {key} names a secret that it is not given");
            } else {
                let hint = ["PASSWORD", "SECRET", "TOKEN"].iter().any(|word| key.contains(word));
                let login = value.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
                let bare = login.is_none_or(|(login, _)| !login.contains(':'));
                assert!(!hint && bare, "{name}: {key} holds a password");
            }
        }
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(path("deploy/secrets.sh"), folder.path().join("secrets.sh")).expect("the script is copied");
    let made = || {
        let done = Command::new("sh").arg(folder.path().join("secrets.sh")).output().expect("sh runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let whole = yaml(FILE);
        let read = |(name, secret): (&str, &Value)| {
            let file = folder.path().join(text(&secret["file"]));
            let mode = std::fs::metadata(&file).expect("the secret is there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o444, "{name} can be read by the container's user");
            (name.to_owned(), std::fs::read_to_string(file).expect("a secret in text"))
        };
        members(&whole["secrets"]).map(read).collect::<std::collections::BTreeMap<_, _>>()
    };
    let first = made();
    let mode = std::fs::metadata(folder.path().join("secrets")).expect("the folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "no other account of the host gets to them");
    let password = &first["postgres_password"];
    assert!(password.len() == 48 && password.chars().all(|letter| letter.is_ascii_hexdigit()), "{password}");
    assert_ne!(password, &first["grafana_password"]);
    assert_eq!(made(), first, "a second call changes nothing");
}
