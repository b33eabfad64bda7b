//! Work that must not go on after a sleep: a machine that stood still for longer than its evidence
//! is good for has perhaps been given up by the others.

use crate::core::time::Duration;
use crate::io::clock;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// The work stood still for too long and was dropped where it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Overslept;

/// Does `work` as long as this thread never stands still for longer than `longest`. The clock is
/// read directly before each step of it.
pub async fn awake<T>(longest: Duration, work: impl Future<Output = T>) -> Result<T, Overslept> {
    let (mut work, mut tick) = (pin!(work), pin!(tokio::time::sleep(longest / 4)));
    let mut last = clock::now();
    poll_fn(|context| {
        let now = clock::now();
        if now.since(last) > longest {
            return Poll::Ready(Err(Overslept));
        }
        last = now;
        while tick.as_mut().poll(context).is_ready() {
            tick.as_mut().reset(tokio::time::Instant::now() + longest / 4);
        }
        work.as_mut().poll(context).map(Ok)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), work)
    }

    /// Goal: nothing is started after a freeze that came while something else was waited for.
    #[test]
    fn nothing_goes_on_after_a_freeze() {
        let acted = Cell::new(false);
        let result = run(awake(Duration::from_millis(100), async {
            tokio::task::spawn_local(async {
                // The freeze: this thread does nothing for longer than allowed.
                std::thread::sleep(Duration::from_millis(150));
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
            acted.set(true);
        }));
        assert_eq!((result, acted.get()), (Err(Overslept), false));
    }

    /// Goal: waiting is not standing still.
    #[test]
    fn a_long_wait_is_no_sleep() {
        let longest = Duration::from_millis(200);
        let wait = async { tokio::time::sleep(longest * 2).await };
        assert_eq!(run(awake(longest, wait)), Ok(()));
    }
}
