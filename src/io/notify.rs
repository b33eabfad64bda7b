//! sd_notify(3) on a thread of its own, because a PID 1 that does not read would block the sender.
//! The watchdog is fed only while the daemon's loop has turned lately, and with it every thread
//! without which the loop can do nothing: that of systemd. Not the disk's: a new daemon would wait
//! for the same disk, and one that hangs there cannot even be killed (the core tells of it).

use super::kernel::printable;
use sd_notify::NotifyState;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Memory is locked, so a thread's stack is paid for.
const STACK: usize = 128 * 1024;

/// The daemon's end. Of what PID 1 has not read yet the newest word counts, so that nothing
/// queues up, and the last one always arrives.
#[derive(Clone)]
pub struct Notify(Arc<Shared>);

#[derive(Default)]
struct Shared {
    unsaid: Mutex<Unsaid>,
    changed: Condvar,
    turned: Pulse,
    /// Other threads' signs of life.
    pulses: Mutex<Vec<Pulse>>,
}

/// When something last showed that it is not stuck.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    pub fn beat(&self) {
        self.0.store(super::clock::now().0, Ordering::Relaxed);
    }

    fn age(&self) -> u64 {
        super::clock::now().0.saturating_sub(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Unsaid {
    mode: Option<Mode>,
    status: Option<String>,
    extend: Option<Duration>,
}

enum Mode {
    Ready,
    Reloading,
    Stopping,
}

/// After which time without a sign of life PID 1 ends this process, if ever; `None`: it did not
/// start it.
pub fn ended_after() -> Option<Option<Duration>> {
    std::env::var_os("NOTIFY_SOCKET").map(|_| sd_notify::watchdog_enabled())
}

/// Once, from a program that has nothing else to say.
pub fn ready_now() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// PID 1 keeps it open under this name, also when this process dies.
pub fn keep(fd: &impl AsFd, name: &str) -> std::io::Result<()> {
    let states = [NotifyState::FdStore, NotifyState::FdName(name)];
    sd_notify::notify_with_fds(&states, &[fd.as_fd()])
}

/// PID 1 closes what it keeps under this name.
pub fn forget(name: &str) {
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

impl Notify {
    /// If PID 1 would end a daemon that hangs later than this, it is told to do it then.
    pub fn spawn(most: Option<Duration>) -> std::io::Result<Notify> {
        let set = sd_notify::watchdog_enabled();
        let most = most.filter(|most| set.is_none_or(|set| set > *most));
        if let Some(most) = most {
            let micros = u32::try_from(most.as_micros()).unwrap_or(u32::MAX);
            let _ = sd_notify::notify(&[NotifyState::WatchdogUsec(micros)]);
        }
        Notify::through(most.or(set), |states| {
            let _ = sd_notify::notify(states);
        })
    }

    fn through(
        watchdog: Option<Duration>,
        say: impl Fn(&[NotifyState]) + Send + 'static,
    ) -> std::io::Result<Notify> {
        let notify = Notify(Arc::default());
        notify.turned();
        let shared = notify.0.clone();
        let thread = std::thread::Builder::new().name("notify".into()).stack_size(STACK);
        thread.spawn(move || run(&shared, watchdog, say))?;
        Ok(notify)
    }

    /// The loop has turned: called at every event.
    pub fn turned(&self) {
        self.0.turned.beat();
    }

    /// From now on the watchdog counts on this one too.
    pub fn count_on(&self, pulse: Pulse) {
        pulse.beat();
        self.0.pulses.lock().expect("nobody panics with it").push(pulse);
    }

    pub fn ready(&self) {
        self.unsaid(|unsaid| unsaid.mode = Some(Mode::Ready));
    }

    pub fn status(&self, words: String) {
        self.unsaid(|unsaid| unsaid.status = Some(words));
    }

    pub fn reloading(&self) {
        self.unsaid(|unsaid| unsaid.mode = Some(Mode::Reloading));
    }

    pub fn stopping(&self) {
        self.unsaid(|unsaid| unsaid.mode = Some(Mode::Stopping));
    }

    /// Asks for so much more time to stop (EXTEND_TIMEOUT_USEC=).
    pub fn extend(&self, by: Duration) {
        self.unsaid(|unsaid| unsaid.extend = Some(by));
    }

    /// The lock is held for a moment only, never while PID 1 is spoken to.
    fn unsaid(&self, change: impl FnOnce(&mut Unsaid)) {
        change(&mut self.0.unsaid.lock().expect("nobody panics with it"));
        self.0.changed.notify_one();
    }
}

fn run(shared: &Shared, watchdog: Option<Duration>, say: impl Fn(&[NotifyState])) {
    let pause = watchdog.map_or(Duration::from_secs(3600), |limit| limit / 4);
    loop {
        let guard = shared.unsaid.lock().expect("nobody panics with it");
        let idle = |u: &mut Unsaid| u.mode.is_none() && u.status.is_none() && u.extend.is_none();
        let (mut guard, _) =
            shared.changed.wait_timeout_while(guard, pause, idle).expect("nobody panics with it");
        let unsaid = std::mem::take(&mut *guard);
        drop(guard);
        match unsaid.mode {
            Some(Mode::Ready) => say(&[NotifyState::Ready]),
            Some(Mode::Reloading) => match NotifyState::monotonic_usec_now() {
                Ok(at) => say(&[NotifyState::Reloading, at]),
                Err(_) => say(&[NotifyState::Reloading]),
            },
            Some(Mode::Stopping) => say(&[NotifyState::Stopping]),
            None => {}
        }
        if let Some(words) = unsaid.status {
            // One line: what comes after a line's end would be a word of its own to PID 1.
            say(&[NotifyState::Status(&printable(&words))]);
        }
        if let Some(by) = unsaid.extend {
            let usec = by.as_micros().min(u128::from(u32::MAX)) as u32;
            say(&[NotifyState::ExtendTimeoutUsec(usec)]);
        }
        let turned = shared.turned.age();
        let pulses = shared.pulses.lock().expect("nobody panics with it");
        let still = pulses.iter().map(Pulse::age).fold(turned, u64::max);
        drop(pulses);
        if watchdog.is_some_and(|limit| u128::from(still) < limit.as_nanos() / 2) {
            say(&[NotifyState::Watchdog]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A PID 1 that reads only when it is let.
    fn pid1(watchdog: Option<Duration>) -> (Notify, Sender<()>, Receiver<String>) {
        let (read, may) = channel::<()>();
        let (heard, words) = channel();
        let notify = Notify::through(watchdog, move |states| {
            let _ = may.recv();
            let _ = states.iter().try_for_each(|s| heard.send(s.to_string()));
        });
        (notify.expect("a thread"), read, words)
    }

    /// Goal: a PID 1 that does not read for long gets the last word, and the sayer never waits:
    /// READY=1 after a reload, else the unit stays in "reloading" for ever.
    #[test]
    fn a_pid_1_that_slept_hears_the_last_word() {
        let (notify, read, words) = pid1(None);
        for n in 0..500 {
            notify.status(format!("status {n}"));
            notify.reloading();
        }
        notify.status("the last\nMAINPID=1".into());
        notify.ready();
        drop(read);
        let mut heard = Vec::new();
        while !heard.iter().any(|w: &String| w.contains("the last")) {
            heard.push(words.recv_timeout(PATIENCE).expect("PID 1 hears it"));
        }
        assert!(heard.len() < 10, "{heard:?}");
        let mode = heard.iter().rfind(|w| !w.contains("STATUS"));
        assert_eq!(mode.map(String::as_str), Some("READY=1"), "{heard:?}");
        assert!(heard.iter().all(|w| !w.contains('\n')), "{heard:?}");
    }

    /// Goal: a loop that hangs is not fed for.
    #[test]
    fn the_watchdog_starves_with_the_loop() {
        let limit = Duration::from_millis(400);
        let (notify, read, words) = pid1(Some(limit));
        drop(read);
        let began = super::super::clock::now();
        assert_eq!(words.recv_timeout(PATIENCE).as_deref(), Ok("WATCHDOG=1"));
        while words.recv_timeout(limit).is_ok() {
            let since = super::super::clock::now().since(began);
            assert!(since < PATIENCE, "still fed {since:?} after the loop's last turn");
        }
        notify.turned();
        assert_eq!(words.recv_timeout(PATIENCE).as_deref(), Ok("WATCHDOG=1"));
    }

    /// Goal: a daemon whose systemd thread hangs is not fed for, though its loop turns.
    #[test]
    fn the_watchdog_starves_with_a_thread_it_counts_on() {
        let limit = Duration::from_millis(400);
        let (notify, read, words) = pid1(Some(limit));
        drop(read);
        let pulse = Pulse::default();
        notify.count_on(pulse.clone());
        let (mine, stop) = (notify, Arc::new(AtomicU64::new(0)));
        let until = stop.clone();
        let turning = std::thread::spawn(move || {
            while until.load(Ordering::Relaxed) == 0 {
                mine.turned();
                std::thread::yield_now();
            }
        });
        assert_eq!(words.recv_timeout(PATIENCE).as_deref(), Ok("WATCHDOG=1"));
        let began = super::super::clock::now();
        while words.recv_timeout(limit).is_ok() {
            assert!(super::super::clock::now().since(began) < PATIENCE, "still fed");
        }
        pulse.beat();
        assert_eq!(words.recv_timeout(PATIENCE).as_deref(), Ok("WATCHDOG=1"));
        stop.store(1, Ordering::Relaxed);
        turning.join().expect("it turned");
    }
}
