//! The thread of a writer or of a consumer. Owns waiting for its end up to a deadline, and noticing an end that nobody asked for.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the end of a thread is looked for: the standard library cannot wait for it up to a deadline.
const LOOK: Duration = Duration::from_millis(5);

/// A thread that ends when it is told to, by other means.
#[derive(Debug)]
pub(crate) struct Worker(Mutex<Option<JoinHandle<()>>>);

impl Worker {
    /// Starts a thread. `ended` is called on it at the end, also after a panic.
    pub(crate) fn spawn(
        name: &str,
        run: impl FnOnce() + Send + 'static,
        ended: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let at_end = AtEnd(Some(ended));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _at_end = at_end;
            run();
        })?;
        Ok(Self(Mutex::new(Some(thread))))
    }

    /// Waits until the thread has ended, up to the deadline. Blocks.
    pub(crate) fn join(&self, deadline: Instant) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!(name, "a thread ended with a panic");
        }
    }
}

/// Runs when it is dropped, so that an end by panic is an end, too.
struct AtEnd<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn an_end_by_panic_is_noticed() {
        let ended = Arc::new(AtomicBool::new(false));
        let notice = Arc::clone(&ended);
        let worker =
            Worker::spawn("test", || panic!("on purpose"), move || notice.store(true, Ordering::Release))
                .unwrap();
        worker.join(Instant::now() + Duration::from_secs(30));
        assert!(ended.load(Ordering::Acquire));
    }

    #[test]
    fn the_wait_for_the_end_has_a_deadline() {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let run = move || {
            while !told.load(Ordering::Acquire) {
                std::thread::sleep(LOOK);
            }
        };
        let worker = Worker::spawn("test", run, || ()).unwrap();
        worker.join(Instant::now() + LOOK);
        stop.store(true, Ordering::Release);
    }
}
