//! Sleep: the machine is kept from it while it owns something; and work that must not go on after
//! one, because a machine that stood still for longer than its evidence is good for has perhaps
//! been given up by the others.

use super::Shared;
use crate::core::time::Duration;
use crate::io::{Input, clock};
use std::cell::{Cell, RefCell};
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

/// logind's word that the machine is not put to sleep.
#[derive(Default)]
pub struct SleepLock {
    wanted: Cell<bool>,
    asking: Cell<bool>,
    held: RefCell<Option<zbus::OwnedFd>>,
    told: Cell<bool>,
}

impl SleepLock {
    pub fn want(&self, on: bool) {
        self.wanted.set(on);
        if !on {
            self.held.borrow_mut().take();
        }
    }
}

/// Asks logind for it if it is wanted and not there. Called when it is wanted, and anew with every
/// connection; where there is no logind that is said once.
pub async fn lock(shared: &Shared) {
    let lock = &shared.sleep;
    let bus = shared.bus.borrow().clone();
    let Some(bus) = bus.filter(|_| lock.wanted.get() && lock.held.borrow().is_none()) else {
        return;
    };
    if lock.asking.replace(true) {
        return;
    }
    let got = bus.inhibit_sleep().await;
    lock.asking.set(false);
    if got.is_none() && !lock.told.replace(true) {
        let words = "logind does not keep this machine from sleep while it owns groups: mask \
                     sleep.target if anything here may suspend it";
        let _ = shared.inbox.send(Input::Warn(words.into())).await;
    }
    if lock.wanted.get() {
        *lock.held.borrow_mut() = got;
    }
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
