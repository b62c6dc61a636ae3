//! SIGTERM and SIGINT as something to look at, so that data is flushed before the end. A second
//! signal ends the process at once.

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Which signal came, if one did.
pub(super) struct Signals {
    number: Arc<AtomicUsize>,
    came: Arc<AtomicBool>,
}

impl Signals {
    /// From now on signals are noted.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn watch() -> anyhow::Result<Signals> {
        let number = Arc::new(AtomicUsize::new(0));
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let value = usize::try_from(signal).unwrap_or(0);
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&came))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&came)))
                .and_then(|_| signal_hook::flag::register_usize(signal, Arc::clone(&number), value))
                .context("watch for signals")?;
        }
        Ok(Signals { number, came })
    }

    /// The signal's number.
    pub(super) fn caught(&self) -> Option<u8> {
        u8::try_from(self.number.load(Ordering::Relaxed)).ok().filter(|&number| number != 0)
    }

    /// 0 until a signal comes.
    pub(super) fn number(&self) -> &AtomicUsize {
        &self.number
    }

    /// Whether one came.
    pub(super) fn came(&self) -> &AtomicBool {
        &self.came
    }
}
