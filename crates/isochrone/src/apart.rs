//! Work that is not `Send`, as connections to a broker are, on a thread and a runtime of its own.

use std::{thread, time::Duration};

use tokio::{runtime, time::sleep};

/// Between two looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// Does it there, and gives what it gave; otherwise why it could not be done.
pub async fn apart<T, F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| runtime.block_on(work()))
    });
    let thread = thread.map_err(|error| format!("failed to start a thread: {error}"))?;
    while !thread.is_finished() {
        sleep(LOOK).await;
    }
    let done = thread.join().map_err(|_| "it broke off".to_owned())?;
    done.map_err(|error| format!("failed to start a runtime: {error}"))
}
