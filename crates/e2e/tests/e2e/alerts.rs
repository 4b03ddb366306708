//! The alert rules, without servers: each fires when it must and stays silent when it must.

use std::path::PathBuf;

use isochrone_e2e::servers::promtool_with;

#[test]
fn alerts_fire_when_they_must() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = |relative: &str| here.join(relative).display().to_string();
    let rules = path("../../config/prometheus-alerts.yml");
    let tests = path("tests/e2e/alerts.yml");
    assert_eq!(promtool_with(&["check", "rules", &rules]), Ok(()));
    assert_eq!(promtool_with(&["test", "rules", &tests]), Ok(()));

    let read = |path: &str| std::fs::read_to_string(path).expect("a file");
    let tried = read(&tests);
    let cases: Vec<_> = tried.split("- alertname: ").skip(1).collect();
    for line in read(&rules).lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            let fires = |case: &&str| case.starts_with(&format!("{alert}\n")) && case.contains("exp_labels");
            assert!(cases.iter().any(fires), "{alert} is not seen to fire");
        }
    }
}
