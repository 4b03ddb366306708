//! What is still in the store of one response topic.

use std::time::Duration;

use isochrone_e2e::{daemon::Site, wait};

/// A topic without samples is an empty list; one that the run does not have is an error that says so.
#[test]
fn an_unknown_topic_is_no_empty_one() {
    let site = Site::start(&[("ISOCHRONE_RUN", "sampled")]);
    // Without a consumer it waits: its topic is known and has nothing.
    let _producer = site.daemon("producer", &[("ISOCHRONE_TOPIC", "known")]);
    let samples = |topic: &str| {
        let output = site.isochrone(&["samples", "--run", "sampled", "--topic", topic]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    wait::until("the topic", Duration::from_secs(30), || samples("known").0 == Some(0));
    assert!(samples("known").1.contains("\n0 samples"), "{:?}", samples("known"));
    let (code, said) = samples("unknown");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("failed to use run sampled: it has no response topic unknown"),
        "{said}"
    );
}
