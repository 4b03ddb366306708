//! What an Elasticsearch says only when it is unwell. The rest has a test of its own, against a real one.

use std::{sync::Arc, time::Duration};

use isochrone_model::{
    thinning::Thinning,
    time::{Clock, Monotonic, Offset},
};
use isochrone_sink::{
    Error,
    elasticsearch::{Access, Config, Elasticsearch, Login},
};

use crate::{
    scripted::Scripted,
    story::{Story, recent},
};

struct NoClock;

impl Clock for NoClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(0)
    }
    fn offset(&self) -> Offset {
        Offset {
            reference_minus_monotonic_ns: 0,
            bound_ns: 0,
            era: 0,
        }
    }
}

/// A gateway's `Retry-After` may be a date.
#[tokio::test]
async fn patience_may_be_a_date() {
    let answer = "503 Service Unavailable\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:50 GMT\r\n";
    let server = Scripted::start(vec![(answer, Vec::new())]).await;
    let access = Access {
        url: server.url.clone(),
        login: Login::None,
        ca: None,
    };
    let config = Config {
        access,
        samples: Thinning::All,
        retention: None,
    };
    let sink = Elasticsearch::new(config, Arc::new(NoClock)).unwrap();
    let mut story = Story::new(&sink, "r1", 1);
    let error = story.deliver(recent(), &[("a", &[1])]).await.unwrap_err();
    assert!(
        matches!(error, Error::Busy { after: Some(after), .. } if after == Duration::from_secs(13)),
        "{error:?}"
    );
}
