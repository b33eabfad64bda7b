//! The time of day as people here read it, with its offset from UTC, so that two nodes' can be told
//! apart.

/// `2026-11-21 05:00:12 +0100`, from microseconds since 1970.
pub fn words(micros: i64) -> String {
    let (tm, offset) = broken_down(micros);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} {offset}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}

/// The same by RFC 3339, to the microsecond.
pub fn rfc3339(micros: i64) -> String {
    let (tm, offset) = broken_down(micros);
    let (hours, minutes) = offset.split_at(3);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}{hours}:{minutes}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        micros.rem_euclid(1_000_000)
    )
}

/// By the time zone of this machine (tzset(3)).
fn broken_down(micros: i64) -> (libc::tm, String) {
    let seconds: libc::time_t = micros.div_euclid(1_000_000);
    // SAFETY: all zeroes is a valid tm, whose pointer is null and is not followed.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live until it returns.
    unsafe { libc::localtime_r(&seconds, &mut tm) };
    let (sign, offset) = (if tm.tm_gmtoff < 0 { '-' } else { '+' }, tm.tm_gmtoff.abs() / 60);
    (tm, format!("{sign}{:02}{:02}", offset / 60, offset % 60))
}
