//! A panic of what others wait for ends the process: a node that lacks one of its threads, its tracker or its
//! reports would neither finish nor fail.

/// While it lives, a panic that drops it ends the process.
struct Needed;

impl Drop for Needed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Does `work`; should it panic, the process ends.
pub(crate) fn or_abort(work: impl FnOnce()) {
    let _needed = Needed;
    work();
}

/// The same for a task, whose panic the runtime would keep for whoever asks for its result.
pub(crate) async fn task_or_abort(task: impl Future<Output = ()>) {
    let _needed = Needed;
    task.await;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::process::{Command, Output};
    use std::time::Duration;

    /// What this test runs in a process of its own.
    const PANICS: &str = "EZIO_TEST_PANICS_IN_A_TASK";

    /// Runs the test `name` in a process of its own, which `variable` tells that it is one.
    pub(crate) fn alone(name: &str, variable: &str) -> Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", name])
            .env(variable, "1")
            .output()
            .unwrap()
    }

    /// As [`alone`], and it has to fail. Returns what it said.
    #[track_caller]
    pub(crate) fn end_of(name: &str, variable: &str) -> String {
        let output = alone(name, variable);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "it went on: {said}");
        said
    }

    #[test]
    fn a_panic_in_a_task_ends_the_process() {
        if std::env::var_os(PANICS).is_some() {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                tasks.spawn(task_or_abort(async { panic!("nobody has thought of this") }));
                // As long as a node that hangs would have it.
                tokio::time::sleep(Duration::from_secs(20)).await;
            });
            return;
        }
        let said = end_of("a_panic_in_a_task_ends_the_process", PANICS);
        assert!(said.contains("nobody has thought of this"), "{said}");
    }
}
