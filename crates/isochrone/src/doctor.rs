//! Checks what a run stands on, and says how to mend what is wanting.

mod broker;
mod host;

use isochrone_daemon::settings::All;
use isochrone_store::{
    Error, Finding,
    redis::{RedisConfig, RedisStore},
};
use serde_json::json;

use crate::{cli::Format, text::plain_table};

/// The findings as text or JSON, and whether a run can work.
///
/// # Errors
/// A store's URL that cannot be used.
pub async fn examine(all: &All, format: Format) -> Result<(String, bool), Error> {
    let common = &all.common;
    let config = RedisConfig {
        urls: common.redis_url.clone(),
        tls_ca: common.redis_tls_ca.clone(),
        announce: false,
    };
    let store = RedisStore::connect(&config)?;
    let mut findings = vec![Finding::good("settings", "all valid")];
    findings.extend(host::examine(all.producer.devices));
    findings.extend(store.diagnose().await);
    findings.extend(broker::examine(all, &all.producer.broker).await);
    let well = findings.iter().all(|finding| !finding.fatal);
    Ok((print(&findings, format), well))
}

fn print(findings: &[Finding], format: Format) -> String {
    if format == Format::Json {
        let list: Vec<_> = findings
            .iter()
            .map(|finding| json!({"what": finding.what, "found": finding.found, "mend": finding.mend, "fatal": finding.fatal}))
            .collect();
        return format!("{:#}", json!(list));
    }
    let mut table = plain_table();
    for finding in findings {
        let mark = match (&finding.mend, finding.fatal) {
            (None, _) => "ok",
            (Some(_), false) => "mend",
            (Some(_), true) => "FAILS",
        };
        table.add_row([mark, &finding.what, &finding.found]);
        if let Some(mend) = &finding.mend {
            table.add_row(["", "", &format!("→ {mend}")]);
        }
    }
    table.to_string()
}
