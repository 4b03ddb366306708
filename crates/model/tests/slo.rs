//! Objectives are read as written and judged with what never arrived.

#![expect(clippy::unwrap_used, reason = "tests")]

use isochrone_model::{
    histogram::{Dense, Histogram},
    quantity::LONGEST,
    slo::{Evidence, Measured, Objective, list},
};
use proptest::prelude::*;

fn objective(text: &str) -> Objective {
    text.parse().unwrap()
}

/// `n` messages of 1 to n milliseconds.
fn milliseconds(n: i64) -> Dense {
    let mut dense = Dense::default();
    (1..=n).for_each(|ms| dense.record(ms * 1_000_000));
    dense
}

fn evidence<'a>(response: &'a Dense, nothing: &'a Histogram) -> Evidence<'a> {
    Evidence {
        response,
        transit: response,
        publish_delay: nothing,
        late: nothing,
        ack: nothing,
        sent: response.count(),
        lost: 0,
        unrecorded: 0,
        unsent: 0,
    }
}

fn ms(value: Measured) -> f64 {
    value.number().unwrap() / 1e6
}

#[test]
fn percentiles() {
    let (response, nothing) = (milliseconds(1_000), Histogram::default());
    let evidence = evidence(&response, &nothing);
    let judge = |text: &str| objective(text).evaluate(&evidence);
    assert!((ms(judge("p99<1s").value) - 990.0).abs() < 1.0 && judge("p99<1s").met);
    assert!(!judge("p99<980ms").met);
    assert!(
        judge("max<=1s").met && !judge("max<1s").met,
        "the greatest value is exact"
    );
    assert_eq!(judge("max<1s").value, Measured::Nanoseconds(1e9));
    assert!(judge("mean<501ms").met && !judge("mean<500ms").met);
    assert_eq!(judge("p999<1us"), judge("p99.9<1us"));
    let unknown = judge("p99(ack)<1s");
    assert!(
        unknown.value == Measured::Nothing && !unknown.met,
        "nothing measured, nothing met"
    );
}

/// Lost, unsent and unrecorded are infinitely late, each where it has a meaning.
#[test]
fn what_never_arrived() {
    let (response, nothing) = (milliseconds(980), Histogram::default());
    let all = evidence(&response, &nothing);
    for missing in [
        Evidence {
            lost: 20,
            sent: 1_000,
            ..all
        },
        Evidence {
            unrecorded: 20,
            sent: 1_000,
            ..all
        },
        Evidence { unsent: 20, ..all },
    ] {
        assert_eq!(objective("p99<10s").evaluate(&missing).value, Measured::Infinite);
        assert!(!objective("p99<10s").evaluate(&missing).met);
        assert!(
            objective("p98<10s").evaluate(&missing).met,
            "the last of those that arrived"
        );
        assert_eq!(objective("max<10s").evaluate(&missing).value, Measured::Infinite);
        assert_eq!(objective("mean<10s").evaluate(&missing).value, Measured::Infinite);
    }
    let unsent = Evidence { unsent: 20, ..all };
    assert!(
        objective("max(transit)<10s").evaluate(&unsent).met,
        "what was not sent has no transit"
    );
    assert_eq!(objective("unsent<2%").evaluate(&unsent).value, Measured::Share(0.02));
    let lossy = Evidence {
        lost: 1,
        unrecorded: 1,
        sent: 1_000,
        ..all
    };
    assert_eq!(objective("loss<=0.2%").evaluate(&lossy).value, Measured::Share(0.002));
    assert!(objective("loss<=0.2%").evaluate(&lossy).met && !objective("loss<0.2%").evaluate(&lossy).met);
    assert_eq!(
        objective("loss<1%").evaluate(&Evidence { sent: 0, ..all }).value,
        Measured::Nothing
    );
}

#[test]
fn spellings() {
    let objectives = list(" p99<50ms, loss<0.01%,max<1s , p99.9(transit) <= 250ms,unsent<1%").unwrap();
    let texts: Vec<String> = objectives.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["p99<50ms", "loss<0.01%", "max<1s", "p99.9(transit)<=250ms", "unsent<1%"]
    );
    assert_eq!(list(""), Ok(Vec::new()));
    for text in [
        "p99",
        "p99<",
        "p101.0<1s",
        "p101<1s",
        "p950<1s",
        "p99>1s",
        "p99<5%",
        "loss<5ms",
        "loss(transit)<1%",
        "p99(response<1s",
        "p99(x)<1s",
        "px<1s",
        "loss<200%",
        "loss<1",
        "unsent<=5",
        "p-1<1s",
        "pinf<1s",
        ",",
    ] {
        assert!(list(text).unwrap_err().contains("p99<50ms"), "{text}");
    }
}

/// A share that would mean everything is one that lacks its sign; below 1 it is what it says.
#[test]
fn a_share_without_percent_is_below_one() {
    for (text, meant) in [
        ("loss<1", "loss<1%?"),
        ("loss<=5", "loss<=5%?"),
        ("unsent < 100", "unsent < 100%?"),
    ] {
        let error = list(text).unwrap_err();
        assert!(error.ends_with(meant), "{error}");
    }
    assert_eq!(list("loss<0.5"), list("loss<50%"));
    assert_eq!(list("loss<=100%").unwrap().len(), 1);
}

/// A percentile decides however few messages there were, and says when they were few: by the rule of the report's table.
#[test]
fn few_messages() {
    let nothing = Histogram::default();
    for (n, objective_of, supported) in [
        (1_000, "p99<2s", true),
        (999, "p99<2s", false),
        (5, "p50<2s", false),
        (1, "max<2s", true),
        (1, "p100<2s", true),
        (1, "mean<2s", true),
        (1, "loss<1%", true),
    ] {
        let response = milliseconds(n);
        let outcome = objective(objective_of).evaluate(&evidence(&response, &nothing));
        assert_eq!(
            (outcome.met, outcome.supported),
            (true, supported),
            "{objective_of} of {n}"
        );
        if objective_of.starts_with("p99") {
            assert_eq!(response.percentile_if_supported(0.99).is_some(), supported);
        }
    }
}

proptest! {
    /// What is shown is read back as the same.
    #[test]
    fn round_trip(permille in 1..100_000_u64, ns in 0..=LONGEST.as_nanos() as u64, subject in 0..5_usize) {
        let percent = permille as f64 / 1_000.0;
        let subject = ["max", "mean(late)", "p50", "p0(publish_delay)", "p100(ack)"][subject];
        let texts = [
            format!("p{percent}<{ns}ns"),
            format!("{subject}<={ns}ns"),
            format!("loss<{percent}%"),
        ];
        for text in texts {
            let parsed = objective(&text);
            prop_assert_eq!(objective(&parsed.to_string()), parsed);
        }
    }

    /// Nothing panics.
    #[test]
    fn any_text(text in "(p|max|loss|[0-9.]{0,4}|\\(|\\)|ack|<|=|ms|%|,|é){0,8}") {
        let _ = list(&text);
    }
}
