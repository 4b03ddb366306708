use super::*;

fn daemon(messages: u64, late: u64, extreme: u64) -> BTreeMap<DaemonId, Lateness> {
    [(
        DaemonId(1),
        Lateness {
            messages,
            late,
            extreme,
        },
    )]
    .into()
}

#[test]
fn verdicts() {
    let valid = SecondFacts::default();
    let clock = |bound_ns, p50_ns| SecondFacts {
        clock: ClockDoubt { bound_ns, p50_ns },
        ..SecondFacts::default()
    };
    let missing = |missing| SecondFacts {
        missing,
        ..SecondFacts::default()
    };
    let rows = [
        ("nothing happened", valid.clone(), Reason::Valid),
        (
            "the target was silent",
            SecondFacts {
                sent: 9,
                missing: GivenUp {
                    lost: 9,
                    ..GivenUp::default()
                },
                ..valid.clone()
            },
            Reason::Valid,
        ),
        (
            "1 % is not over 1 %",
            SecondFacts {
                producers: daemon(100, 1, 0),
                ..valid.clone()
            },
            Reason::Valid,
        ),
        (
            "2 % is",
            SecondFacts {
                producers: daemon(100, 2, 0),
                ..valid.clone()
            },
            Reason::GeneratorLate,
        ),
        (
            "one over 100 ms is enough",
            SecondFacts {
                producers: daemon(1_000_000, 1, 1),
                ..valid.clone()
            },
            Reason::GeneratorLate,
        ),
        (
            "a late consumer, by due",
            SecondFacts {
                consumers_by_due: daemon(10, 1, 0),
                ..valid.clone()
            },
            Reason::ConsumerLate,
        ),
        (
            "a late consumer, by receipt",
            SecondFacts {
                consumers_by_receipt: daemon(10, 1, 0),
                ..valid.clone()
            },
            Reason::ConsumerLate,
        ),
        ("a bound of 1 ms is fine", clock(1_000_000, 0), Reason::Valid),
        ("a bound above 1 ms is not", clock(1_000_001, 0), Reason::ClockUnsure),
        (
            "both sides' bounds count",
            SecondFacts {
                sending_bound_ns: 600_000,
                ..clock(600_000, 0)
            },
            Reason::ClockUnsure,
        ),
        (
            "but not within a domain",
            SecondFacts {
                sending_bound_ns: 6_000_000,
                ..clock(0, 0)
            },
            Reason::Valid,
        ),
        (
            "unless the median is large",
            clock(5_000_000, 50_000_000),
            Reason::Valid,
        ),
        (
            "and then up to a tenth of it",
            clock(5_000_001, 50_000_000),
            Reason::ClockUnsure,
        ),
        (
            "a jump of the reference",
            SecondFacts {
                era_changed: true,
                ..valid.clone()
            },
            Reason::ClockUnsure,
        ),
        (
            "deliveries that waited",
            SecondFacts {
                ack_limited: true,
                ..valid.clone()
            },
            Reason::AckLimited,
        ),
        (
            "a dropped sample",
            SecondFacts {
                dropped: 1,
                ..valid.clone()
            },
            Reason::Dropped,
        ),
        (
            "an unrecorded one",
            missing(GivenUp {
                unrecorded: 1,
                ..GivenUp::default()
            }),
            Reason::Dropped,
        ),
        (
            "an unheard one",
            missing(GivenUp {
                unheard: 1,
                ..GivenUp::default()
            }),
            Reason::Dropped,
        ),
        (
            "one that came after all",
            SecondFacts {
                found: GivenUp {
                    unheard: 1,
                    ..GivenUp::default()
                },
                ..missing(GivenUp {
                    unheard: 1,
                    ..GivenUp::default()
                })
            },
            Reason::Valid,
        ),
        (
            "the worst wins",
            SecondFacts {
                dropped: 1,
                ack_limited: true,
                producers: daemon(1, 1, 0),
                ..valid
            },
            Reason::Dropped,
        ),
    ];
    for (sentence, facts, worst) in rows {
        assert_eq!(verdict(&facts).worst, worst, "{sentence}");
    }
}

#[test]
fn all_reasons_are_kept() {
    let facts = SecondFacts {
        dropped: 1,
        ack_limited: true,
        ..SecondFacts::default()
    };
    let reasons = verdict(&facts).reasons;
    assert_eq!(
        reasons.iter().collect::<Vec<_>>(),
        [Reason::Dropped, Reason::AckLimited]
    );
    assert_eq!(Reasons::default().iter().collect::<Vec<_>>(), [Reason::Valid]);
}
