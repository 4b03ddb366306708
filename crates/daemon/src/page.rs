//! `/healthz`, `/readyz` and `/metrics`, answered from a thread of their own, so that they survive load.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use isochrone_store::types::Role;

use crate::{Health, Metrics};

/// A scrape of some thousand series needs little; the default of 2 MiB is only address space, but so is this.
const STACK: usize = 512 * 1024;
/// Defaults that are taken move on by this much: 9463, 9473, 9483…
const STEP: u16 = 10;
const STEPS: u16 = 20;

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("listen on ISOCHRONE_LISTEN={address}: {cause}")]
    Bind {
        /// As set.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// No thread or no runtime.
    #[error("serve the health page: {0}")]
    Start(io::Error),
}

/// The port a role listens on when nothing is set.
pub fn default_port(role: Role) -> u16 {
    match role {
        Role::Producer => 9461,
        Role::Consumer => 9462,
        Role::Plotter => 9463,
    }
}

/// Serves the page for the rest of the process's life and returns its address. `listen`: as set, or `None` for the
/// default of `role`, which moves on when it is taken.
pub fn serve(listen: Option<SocketAddr>, role: Role, health: &Health, metrics: &Metrics) -> Result<SocketAddr, Error> {
    let listener = match listen {
        Some(address) => TcpListener::bind(address).map_err(|cause| Error::Bind { address, cause })?,
        None => bind_default(role)?,
    };
    let address = listener.local_addr().map_err(Error::Start)?;
    listener.set_nonblocking(true).map_err(Error::Start)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .with_state((health.clone(), metrics.clone()));
    let page = async move {
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, router).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(%error, "failed to serve the health page");
        }
    };
    thread::Builder::new()
        .name("health page".to_owned())
        .stack_size(STACK)
        .spawn(move || runtime.block_on(page))
        .map_err(Error::Start)?;
    tracing::info!(%address, "serving /healthz, /readyz and /metrics");
    Ok(address)
}

fn bind_default(role: Role) -> Result<TcpListener, Error> {
    let first = default_port(role);
    let on = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let ports = (0..STEPS).map(|step| first + step * STEP).chain([0]);
    for port in ports {
        match TcpListener::bind(on(port)) {
            Ok(listener) => {
                if port != first {
                    let address = listener.local_addr().map_err(Error::Start)?;
                    tracing::warn!(taken = first, %address, "the default port is taken; listening on another");
                }
                return Ok(listener);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(cause) => {
                return Err(Error::Bind {
                    address: on(port),
                    cause,
                });
            }
        }
    }
    Err(Error::Bind {
        address: on(first),
        cause: io::ErrorKind::AddrInUse.into(),
    })
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State((health, _)): State<(Health, Metrics)>) -> (StatusCode, String) {
    let (ready, text) = health.readiness();
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
}

async fn metrics_page(State((_, metrics)): State<(Health, Metrics)>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.encode(),
    )
}
