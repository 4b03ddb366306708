//! Clocks across domains: the bound of a result is that of both daemons together.

use std::time::Duration;

use isochrone_e2e::{
    daemon::{Site, ready},
    process::Process,
    report::{assert_whole, closed},
    servers::get,
    wait,
};

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(90);

/// The bound of its clock as a daemon's page says it, in nanoseconds.
fn bound_ns(daemon: &Process) -> f64 {
    let port = ready(daemon, START);
    wait::until_some("a disciplined clock", START, || {
        let page = get(port, "/metrics")?;
        let line = page
            .lines()
            .find(|line| line.starts_with("isochrone_clock_bound_seconds "))?;
        let bound: f64 = line.rsplit(' ').next()?.parse().ok()?;
        (bound > 0.0 && bound < 1.0).then_some(bound * 1e9)
    })
}

/// Apart, both daemons' bounds add up; together, there is none.
#[test]
fn the_bound_across_domains_is_the_sum_of_both() {
    let site = Site::start(&[("ISOCHRONE_QOS", "1"), ("ISOCHRONE_RATE", "50")]);
    for (run, domain, domains) in [("apart", "2", 2), ("together", "1", 1)] {
        let _plotter = site.daemon("plotter", &[("ISOCHRONE_RUN", run)]);
        let consumer = site.daemon(
            "consumer",
            &[("ISOCHRONE_RUN", run), ("ISOCHRONE_CLOCK_DOMAIN", domain)],
        );
        let settings = [
            ("ISOCHRONE_RUN", run),
            ("ISOCHRONE_CLOCK_DOMAIN", "1"),
            ("ISOCHRONE_DURATION", "10s"),
        ];
        let mut producer = site.daemon("producer", &settings);
        let bounds = || bound_ns(&producer) + bound_ns(&consumer);
        // Bounds narrow as readings come in, so what a page says later was flushed before, or more.
        let first = bounds();
        wait::pause(Duration::from_secs(3));
        let least = first.min(bounds());
        assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
        let (report, _) = closed(&site, Some(run));
        assert_whole(&report);
        assert_eq!(report["clock"]["domains"], domains);
        let bound = report["clock"]["bound_ns"].as_f64().expect("a bound");
        match domains {
            1 => assert_eq!(bound, 0.0),
            _ => assert!(bound >= least, "{bound} ns, though the daemons said {least} ns"),
        }
    }
}
