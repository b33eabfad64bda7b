//! Whether this machine lets the daemon be on time.

use super::Findings;
use crate::wire::control::DaemonView;
use std::path::Path;

const ADVICE: &str = "heartbeats come late when the machine is busy: sysctl -w \
                      kernel.sched_rt_runtime_us=-1 (in /etc/sysctl.d) lets it have real-time";

/// Whether the daemon has real-time, or would. A running one knows; else the kernel's settings are
/// looked at.
pub fn look(root: &Path, daemon: Option<&DaemonView>, findings: &mut Findings) -> bool {
    if let Some(daemon) = daemon {
        let real_time = daemon.scheduling.starts_with("SCHED_RR");
        if !real_time {
            findings.warn(format!(
                "the daemon runs with {}: {ADVICE}, unless a drop-in takes it away \
                 (RestrictRealtime=, LimitRTPRIO=, CapabilityBoundingSet=): systemctl cat \
                 hafailover",
                daemon.scheduling
            ));
        }
        if !daemon.memory_locked {
            findings.warn(
                "the daemon's memory is not locked and may be swapped out: LimitMEMLOCK=infinity \
                 and CAP_IPC_LOCK are in hafailover.service: systemctl cat hafailover shows what \
                 takes them away",
            );
        }
        return real_time;
    }
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let runtime = read("proc/sys/kernel/sched_rt_runtime_us");
    if runtime.trim() == "0" {
        findings.warn(format!("kernel.sched_rt_runtime_us is 0: {ADVICE}"));
        return false;
    }
    let config = format!("boot/config-{}", read("proc/sys/kernel/osrelease").trim());
    let grouped = read(&config).lines().any(|l| l == "CONFIG_RT_GROUP_SCHED=y");
    let refused = grouped && runtime.trim() != "-1";
    if refused {
        findings.warn(format!(
            "/{config}: CONFIG_RT_GROUP_SCHED=y: this kernel refuses real-time to services: \
             {ADVICE}"
        ));
    }
    !refused
}
