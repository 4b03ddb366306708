//! Files for those who deploy that follow from the declarations: Compose's settings and the schema of the Helm chart.

use std::{fs, path::Path};

use isochrone_daemon::settings::{Declaration, declarations, env_file};
use isochrone_store::types::Role;
use serde_json::{Map, Value, json};

type Belongs = fn(&Declaration) -> bool;

/// `config/*.env` are what the declarations say, but for what `.env` has, whose every name is a setting. `UPDATE=1` writes
/// them.
#[test]
fn the_env_files_match() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let common = fs::read_to_string(top.join(".env")).unwrap();
    let elsewhere: Vec<_> = common
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .filter(|name| name.starts_with("ISOCHRONE_"))
        .chain(["ISOCHRONE_LISTEN"])
        .collect();
    for name in &elsewhere {
        assert!(
            declarations().iter().any(|declaration| declaration.variable() == *name),
            ".env: {name} is no setting"
        );
    }
    let files = [
        ("common", None),
        ("producer", Some(Role::Producer)),
        ("consumer", Some(Role::Consumer)),
        ("plotter", Some(Role::Plotter)),
    ];
    for (name, role) in files {
        let path = top.join(format!("config/{name}.env"));
        let wanted = env_file(role, &elsewhere);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &wanted).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "config/{name}.env is out of date: run with UPDATE=1");
    }
}

/// The schema of the Helm chart knows every setting at each place where one can be set, and no other. `UPDATE=1` writes it.
#[test]
fn the_chart_knows_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/isochrone/values.schema.json");
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    // The chart sets these itself: the probes' port, and how long a pod is given to end.
    let own = ["ISOCHRONE_LISTEN", "ISOCHRONE_SHUTDOWN"];
    // What is secret has its place among the secrets alone: settings are variables of the environment.
    fn plain(declaration: &Declaration, role: Role) -> bool {
        !declaration.secret && declaration.readers.contains(&role)
    }
    let places: [(&str, Belongs); 5] = [
        ("every", |declaration| {
            !declaration.secret && declaration.readers.len() == 3
        }),
        ("producer", |declaration| plain(declaration, Role::Producer)),
        ("consumer", |declaration| plain(declaration, Role::Consumer)),
        ("plotter", |declaration| plain(declaration, Role::Plotter)),
        ("secret", |declaration| declaration.file),
    ];
    for (place, belongs) in places {
        let properties: Map<_, _> = declarations()
            .iter()
            .filter(|declaration| belongs(declaration) && !own.contains(&declaration.variable().as_str()))
            .map(|declaration| {
                let help = format!("{} Must be {}.", declaration.help, declaration.valid);
                let property = json!({"description": help, "type": ["string", "number", "boolean"]});
                (declaration.variable(), property)
            })
            .collect();
        schema["$defs"][place] = json!({"type": "object", "additionalProperties": false, "properties": properties});
    }
    let wanted = format!("{schema:#}\n");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == wanted,
        "values.schema.json is out of date: run with UPDATE=1"
    );
}

/// The chart's copies of the servers' configurations are those that Compose and Swarm use.
#[test]
fn the_chart_ships_the_same_servers() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in ["mosquitto.conf", "redis.conf"] {
        let shipped = fs::read_to_string(top.join("deploy/helm/isochrone/files").join(name)).unwrap();
        assert_eq!(shipped, fs::read_to_string(top.join("config").join(name)).unwrap());
    }
}
