//! What there is to set, as help and reference page say it.

use std::{collections::BTreeMap, fs, path::Path};

use isochrone_daemon::settings::{declarations, help, reference};
use isochrone_store::types::Role;

/// Every setting is declared once, with help, and what its default says is what it must be.
#[test]
fn declarations_are_complete() {
    let mut seen = BTreeMap::new();
    for declaration in declarations() {
        assert!(
            seen.insert(declaration.field, ()).is_none(),
            "{} twice",
            declaration.field
        );
        assert!(
            declaration.help.ends_with('.'),
            "{}: {}",
            declaration.field,
            declaration.help
        );
        assert!(
            !declaration.help.contains('\\'),
            "{}: {}",
            declaration.field,
            declaration.help
        );
        assert!(!declaration.readers.is_empty());
    }
    for name in ["password", "consumer_password"] {
        assert!(
            declarations()
                .iter()
                .any(|declaration| declaration.field == name && declaration.secret && declaration.file)
        );
    }
}

/// What `--help` prints, per daemon.
#[test]
fn help_is_pinned() {
    insta::assert_snapshot!("help_producer", help(Role::Producer));
    insta::assert_snapshot!("help_consumer", help(Role::Consumer));
    insta::assert_snapshot!("help_plotter", help(Role::Plotter));
}

/// `docs/settings.md` is what the declarations say. `UPDATE=1` writes it.
#[test]
fn the_reference_page_matches() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, reference()).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == reference(),
        "docs/settings.md is out of date: run with UPDATE=1"
    );
}
