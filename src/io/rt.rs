//! Being on time: real-time scheduling and locked memory, asked for and done without where the
//! kernel refuses (sched(7), mlockall(2)).

use rustix::mm::{MlockAllFlags, mlockall};

/// Half way between the lowest and the highest of SCHED_RR.
const PRIORITY: i32 = 50;
/// Ahead of everything that is not real-time.
const NICE: i32 = -20;

/// What this process got, in words for `status`.
#[derive(Clone, Debug, Default)]
pub struct Got {
    pub scheduling: String,
    pub memory_locked: bool,
}

/// Asks for SCHED_RR and, refused (CONFIG_RT_GROUP_SCHED gives a service's cgroup no real-time
/// budget), takes the highest nice value. Threads made later do not inherit it.
pub fn ask() -> Got {
    let memory_locked = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).is_ok();
    let param = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: sched_setscheduler reads one sched_param, which lives until it returns.
    let refused = unsafe { libc::sched_setscheduler(0, policy, &raw const param) } != 0;
    if !refused {
        return Got { scheduling: format!("SCHED_RR {PRIORITY}"), memory_locked };
    }
    let why = std::io::Error::last_os_error();
    let scheduling = match rustix::process::setpriority_process(None, NICE) {
        Ok(()) => format!("nice {NICE} (SCHED_RR refused: {why})"),
        Err(e) => format!("ordinary (SCHED_RR refused: {why}; nice refused: {e})"),
    };
    Got { scheduling, memory_locked }
}
