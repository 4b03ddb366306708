//! Why a plotter ends early.

/// What cannot be retried. Messages fit after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refuses us, or the run disagrees with our settings.
    #[error(transparent)]
    Store(#[from] isochrone_store::Error),
    /// The task of a sink has ended, which it never does by itself.
    #[error("keep the sink {0} running")]
    Sink(&'static str),
    /// Settings of a back end that only its client can judge.
    #[error(transparent)]
    BackEnd(#[from] isochrone_sink::elasticsearch::BadAccess),
    /// The settings of the OTLP sink cannot work.
    #[error(transparent)]
    Otlp(#[from] isochrone_sink::otlp::BadConfig),
    /// The settings of the InfluxDB sink cannot work.
    #[error(transparent)]
    InfluxDb(#[from] isochrone_sink::influxdb::BadConfig),
}
